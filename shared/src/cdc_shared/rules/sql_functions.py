"""What a sql rule may call, in DuckDB's names, as docs/architecture/data-quality.md lists it.

Whatever gives a result much longer than its arguments (repeat, replace, lpad, range) is missing for a reason: DuckDB
allocates a single text beyond its own memory limit. What would answer differently tomorrow (now, random) is missing
because a document must get the same answer whenever, and by whomever, it is asked.
"""

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS: Final = _words("+ - * / // % ^ ** & | || @ << >> ~~ !~~ ~~* !~~* ~~~")
NUMBER_FUNCTIONS: Final = _words("""
    abs ceil ceiling even exp floor greatest isfinite isinf isnan least ln log log10 log2 mod pow power round sign sqrt
    trunc
""")
TEXT_FUNCTIONS: Final = _words("""
    ascii char_length character_length concat contains ends_with ifnull ilike_escape instr lcase left len length lower
    like_escape ltrim not_ilike_escape not_like_escape nullif position prefix regexp_extract regexp_full_match
    regexp_matches reverse right rtrim split_part starts_with strlen strpos substr substring suffix trim ucase unicode
    upper
""")
DATE_FUNCTIONS: Final = _words("""
    date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth
    dayofweek dayofyear epoch epoch_ms epoch_us hour isodow isoyear last_day microsecond millisecond minute month
    monthname quarter second strftime timezone week weekday weekofyear year yearweek
""")
INTERVAL_FUNCTIONS: Final = _words("to_days to_hours to_minutes to_months to_seconds to_weeks to_years")
ARRAY_FUNCTIONS: Final = _words("""
    array_contains array_has array_has_all array_has_any array_length list_avg list_contains list_count list_distinct
    list_extract list_has list_has_all list_has_any list_max list_min list_position list_sum list_unique list_value
""")
FUNCTIONS: Final = NUMBER_FUNCTIONS | TEXT_FUNCTIONS | DATE_FUNCTIONS | INTERVAL_FUNCTIONS | ARRAY_FUNCTIONS
REGULAR_EXPRESSIONS: Final = _words("regexp_extract regexp_full_match regexp_matches")

TYPES: Final = _words("""
    BIGINT BLOB BOOLEAN DATE DECIMAL DOUBLE FLOAT HUGEINT INTEGER INTERVAL SMALLINT TIME TIMESTAMP TINYINT UUID VARCHAR
""") | {"TIMESTAMP WITH TIME ZONE"}
"""What may be cast to."""

NOW: Final = _words("current_date current_time current_timestamp localtime localtimestamp")
"""What the parser takes for columns, though who writes it means the clock."""
