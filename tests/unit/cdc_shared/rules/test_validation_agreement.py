"""Random documents and rules: a batch, checked on whole columns, gives what each document alone gives."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, seed, settings
from hypothesis import strategies as st

from cdc_shared.documents import DocumentSchema, decode, parse_document
from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.comparison import identity
from cdc_shared.rules.field_values import values_at
from cdc_shared.rules.uniqueness import NoValueTwice
from cdc_shared.rules.validation import Validation

pytestmark = pytest.mark.unit

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 60))


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


thorough = settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# --- documents, as Debezium writes them -------------------------------------------------------------------------------

SMALL_LONGS = ["0", "5", "-3", "1", "2", '{"$numberLong": "5"}', '{"$numberLong": "40"}']
SMALL_DOUBLES = ["5.0", "2.5", "0.1", "1.0", "NaN", "-0.5"]
LONGS = [*SMALL_LONGS, *[f'{{"$numberLong": "{n}"}}' for n in (2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))]]
DOUBLES = [*SMALL_DOUBLES, "-0.0", "Infinity", "-Infinity", "9007199254740992.0", "1e300", "-9.3e18"]
STRINGS = ['"x"', '"X"', '"xy"', '"é"', '"😀"', '""', '"5"', '"a\\nb"', '"2024-01-01"', '"b\\u0000"']
DECIMALS = [
    f'{{"$numberDecimal": "{n}"}}'
    for n in ("5", "5.0", "0.1", "2.5", "-3", "NaN", "Infinity", "-0", "1E+30", "1234567890123456789.5", f"{2**53 + 1}")
]  # fmt: skip
DATES = [f'{{"$date": {ms}}}' for ms in (0, -1, 1704067200000, 1704067200001, 253402300800000, -(10**15))]
OTHERS = [
    "true",
    "false",
    '{"$oid": "0123456789abcdef01234567"}',
    '{"$binary": "AAAA","$type": "00"}',
    '{"$binary": "AAAAAA==","$type": "80"}',
    '{"$binary": "AAECAwQFBgcICQoLDA0ODw==","$type": "04"}',
    '{"$regex": "x","$options": "i"}',
    '{"$timestamp": {"t": 5,"i": 1}}',
    '{"$minKey": 1}',
    '{"$code": "x"}',
    "[]",
    "{}",
    '{"x": 5,"x": 6}',
]
SCALARS = [*LONGS, *DOUBLES, *STRINGS, *DECIMALS, *DATES, *OTHERS]


POOLS = [LONGS, DOUBLES, [*LONGS, *DOUBLES], STRINGS, DECIMALS, DATES, OTHERS]
SMALL_POOLS = [SMALL_LONGS, SMALL_DOUBLES, [*SMALL_LONGS, *SMALL_DOUBLES], STRINGS, DATES[:4], OTHERS]


class Writer:
    """Writes documents of one collection: each field has values of one kind mostly, and odd ones now and then."""

    def __init__(self, draw: st.DrawFn, pools: list[list[str]]) -> None:
        self._draw = draw
        self._usual = {name: [*draw(st.sampled_from(pools)), "null"] for name in ("a", "b", "c", "u v", "x", "y", "l")}
        self._odd_names = draw(st.sets(st.sampled_from([*self._usual, "o", "lo"])))
        self._any = [text for pool in pools for text in pool]

    def document(self) -> str:
        match self._draw(st.integers(0, 15)):
            case 0:
                return f'{{"a": 1,"a": {self._one_of(SCALARS)}}}'
            case 1:
                return '{"a": '
            case _:
                return self._object(["a", "b", "c", "u v", "o", "l", "lo", "deep"])

    def _object(self, names: list[str]) -> str:
        chosen = self._draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names)))
        return "{" + ",".join(f'"{name}": {self._value(name)}' for name in chosen) + "}"

    def _value(self, name: str) -> str:
        if name in self._odd_names and not self._draw(st.integers(0, 3)):
            return self._oddity()
        match name:
            case "o":
                return self._object(["x", "y"])
            case "l":
                return self._array(lambda: self._one_of(self._usual["l"]))
            case "lo":
                return self._array(lambda: self._object(["x", "y"]))
            case "deep":
                return self._array(lambda: self._object(["l"]))
        return self._one_of(self._usual[name])

    def _oddity(self) -> str:
        def scalar() -> str:
            return self._one_of(self._any)

        match self._draw(st.integers(0, 4)):
            case 0:
                return self._array(scalar)
            case 1:
                return self._array(lambda: self._array(scalar))
            case 2:
                return f'{{"x": {scalar()},"y": {scalar()}}}'
            case _:
                return scalar()

    def _array(self, element: Callable[[], str]) -> str:
        return f"[{','.join(element() for _ in range(self._draw(st.integers(0, 3))))}]"

    def _one_of(self, texts: list[str]) -> str:
        return self._draw(st.sampled_from(texts))


@dataclass
class Collection:
    before: list[str]
    texts: list[str]
    keys: list[str]


@st.composite
def collections(draw: st.DrawFn, pools: list[list[str]]) -> Collection:
    writer = Writer(draw, pools)
    before = [writer.document() for _ in range(draw(st.integers(0, 3)))]
    texts = [writer.document() for _ in range(draw(st.integers(1, 10)))]
    return Collection(before, texts, [draw(st.sampled_from("kmn")) for _ in texts])


known_types: st.SearchStrategy[t.FieldType] = st.sampled_from(
    [t.STRING, t.LONG, t.DOUBLE, t.Decimal(10), t.Decimal(18), t.Number(4), t.JSON, t.TEXT, t.DATE, t.NULL, t.Binary(0)]
)


@st.composite
def known_schemas(draw: st.DrawFn) -> DocumentSchema:
    """What the table knew before: also what no first batch makes, such as columns of a policy or a promotion."""
    named = draw(st.dictionaries(st.sampled_from(["a", "b", "o", "l", "u v"]), known_types, max_size=4))
    if named.get("l"):
        named["l"] = t.List(named["l"]) if not isinstance(named["l"], t.Null) and draw(st.booleans()) else named["l"]
    return DocumentSchema(tuple(t.Field(name, type_) for name, type_ in named.items()))


# --- rules ------------------------------------------------------------------------------------------------------------

paths = st.sampled_from(
    ["/a", "/b", "/c", "/u v", "/o", "/o/x", "/o/y", "/o/*/x", "/l", "/l/*", "/lo/*/x", "/lo/x", "/lo/*/y", "/lo/*",
     "/deep/*/l/*", "/deep/l", "/a/*", "/a/x", "/missing", "/missing/*/x", "/l/*/*"]
)  # fmt: skip
bounds = st.sampled_from([None, 0, 5, -3, 0.1, 2.5, 2**53 + 1, -(2**70), 2**70, 1e19, -9.3e18, 9007199254740992.0])
date_bounds = st.sampled_from([None, "2024-01-01", "1970-01-01T00:00:00Z", "2024-01-01T01:00:00.001+01:00"])
type_names = st.sampled_from(
    ["string", "long", "double", "number", "boolean", "decimal", "date", "objectId", "uuid", "binary", "regex",
     "timestamp", "object", "array"]
)  # fmt: skip


def ordered(low: Any, high: Any) -> dict[str, Any]:
    if low is None and high is None:
        low = 0
    return {"min": low, "max": high if low is None or high is None or low <= high else None}


def rule(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"rule": st.just(kind), "path": paths, **members})


value_rules = st.one_of(
    rule("required"),
    rule("type", types=st.lists(type_names, min_size=1, max_size=3)),
    st.builds(lambda path, low, high: {"rule": "range", "path": path, **ordered(low, high)}, paths, bounds, bounds),
    st.builds(
        lambda at, low, high: {"rule": "range", "path": at, "min": low or "1960-01-01", "max": high and "2025-01-01"},
        paths, date_bounds, date_bounds,
    ),
    st.builds(
        lambda path, low, high: {"rule": "length", "path": path, **ordered(low, high)},
        paths, st.integers(0, 4), st.integers(0, 20),
    ),
    rule("regex", pattern=st.sampled_from(["x", "x|xy", ".", "(?s).*", "[a-z]+", "(?i)x", "a$|.*", "(?m)^a$", "\\d+"])),
    rule(
        "enum",
        values=st.lists(
            st.sampled_from(["x", "é", "5", 5, 5.0, 0.1, True, 0, 2**53 + 1, 1e300, 10**30]), min_size=1, max_size=4
        ),
    ),
    rule("unique"),
    rule("compare", operator=st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), other=paths).filter(
        lambda made: made["path"] != made["other"]
    ),
)  # fmt: skip

sql_expressions = st.sampled_from(
    [
        "a > 1", "a = b", "lower(a) = 'x'", "o.x >= 2 OR o.y IS NULL", "len(l) > 0", "year(c) > 1970", "a AND b",
        "list_contains(l, 5)", "u_v = 'x'", "U_V <> 'x' OR B IS NULL", "CAST(a AS BIGINT) > 2", "a IN (1, 5)",
        "NOT (a IS NULL AND b IS NULL)", "missing > 5 OR a < 3", "a + 1 > b", "c < TIMESTAMP '2024-01-01'",
        "a LIKE 'x%' AND len(a) < 3", "o IS NOT NULL", "(o).x = o['y']", "a[1] = 5", "lo IS NULL OR l[1] IS NULL",
        "TRY(CAST(a AS DATE)) IS NULL", "CASE WHEN a > 2 THEN b IS NULL ELSE o.x > 1 END",
        "year(coalesce(c, b)) = 1970", "regexp_full_match(b, 'x.*')", "c + INTERVAL 1 DAY > b", "epoch_ms(c) = 0",
    ]
)  # fmt: skip
sql_rules = st.builds(
    lambda kind, expression: {"rule": kind, "expression": expression},
    st.sampled_from(["sql", "filter"]),
    sql_expressions,
)


# --- agreement --------------------------------------------------------------------------------------------------------


def rejected_one_by_one(validation: Validation, texts: list[str], keys: list[str], invalid: Any) -> dict[int, str]:
    """Row → the rule that it fails: every rule asked of every document alone, and `unique` by its words."""
    failed: dict[int, str] = {}
    open_rows = {row: parse_document(text) for row, text in enumerate(texts) if row not in invalid}
    for number, compiled in enumerate(validation.rules):
        taken: dict[Any, str] = {}
        for row, document in open_rows.items():
            if row in failed:
                continue
            if isinstance(compiled.check, NoValueTwice):
                values = {identity(v) for v in values_at(document, compiled.check.tokens) if v is not None}
                if any(taken.get(value, keys[row]) != keys[row] for value in values):
                    failed[row] = str(number)
                else:
                    taken |= dict.fromkeys(values, keys[row])
            elif not compiled.check.passes(document):
                failed[row] = str(number)
    return failed


def assert_agreement(collection: Collection, known: DocumentSchema, rules: list[dict[str, Any]]) -> None:
    texts, keys = collection.texts, collection.keys
    schema = decode(collection.before, known).schema if collection.before else known
    decoded = decode(texts, schema)
    named = [{**each, "name": str(number)} for number, each in enumerate(rules)]
    validation = Validation.compile(QualitySpec.model_validate({"validation": named}).validation, "c", "dlq")

    rejected = validation.check(decoded, texts, keys)

    expected = rejected_one_by_one(validation, texts, keys, decoded.invalid)
    assert {row: each.rule for row, each in rejected.items()} == dict(sorted(expected.items()))
    assert list(rejected) == sorted(rejected)
    if not any(isinstance(compiled.check, NoValueTwice) for compiled in validation.rules):
        for row, text in enumerate(texts):
            if row not in decoded.invalid:
                assert validation.check_document(parse_document(text)) == rejected.get(row)
    event(f"rejected {bool(rejected)}, rescued {decoded.stats.rescued_values > 0}")


@thorough
@seed(SEED)
@given(st.lists(value_rules, min_size=1, max_size=4), known_schemas(), collections(POOLS))
def test_columns_say_what_documents_say(
    rules: list[dict[str, Any]], known: DocumentSchema, collection: Collection
) -> None:
    assert_agreement(collection, known, rules)


@settings(thorough, max_examples=max(1, EXAMPLES // 2))
@seed(SEED)
@given(st.lists(sql_rules, min_size=1, max_size=2), collections(SMALL_POOLS))
def test_sql_says_the_same_of_a_batch_and_of_each_document(rules: list[dict[str, Any]], collection: Collection) -> None:
    """Numbers are small: whether a sum is too large depends on the column's type, as the documentation says."""
    assert_agreement(collection, DocumentSchema(), rules)
