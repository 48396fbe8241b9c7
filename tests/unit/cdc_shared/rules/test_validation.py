"""What each validation rule says of which value: asked of the document alone, and of a batch of all cases."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import DocumentSchema, decode, parse_document
from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.rule_checks import InvalidRules
from cdc_shared.rules.validation import Validation, check_validation

pytestmark = pytest.mark.unit


def compiled(*rules: dict[str, Any], policy: str = "dlq", collection: str = "orders") -> Validation:
    quality = QualitySpec.model_validate({"validation": rules, "dirty_data": {"policy": policy}})
    check_validation(quality)
    return Validation.compile(quality.validation, collection, quality.dirty_data.policy)


def checked(
    validation: Validation, texts: list[str], keys: list[str] | None = None, schema: DocumentSchema | None = None
) -> dict[int, Rejection]:
    decoded = decode(texts, schema or DocumentSchema())
    return validation.check(decoded, texts, keys or [str(row) for row in range(len(texts))])


def failing(rule: dict[str, Any], texts: list[str]) -> list[str]:
    """The documents that fail; the batch and each document alone say the same."""
    validation = compiled(rule)
    alone = [text for text in texts if validation.check_document(parse_document(text))]
    assert [texts[row] for row in checked(validation, texts)] == alone
    for text in texts:
        assert bool(checked(validation, [text])) == (text in alone)
    return alone


def values(*texts: str) -> list[str]:
    return [f'{{"v": {text}}}' for text in texts]


def failing_values(rule: dict[str, Any], *texts: str) -> list[str]:
    """The texts of the values of /v that fail."""
    assert len(set(texts)) == len(texts)
    failed = failing({"path": "/v", **rule}, values(*texts))
    return [text for text in texts if f'{{"v": {text}}}' in failed]


LONG_BEYOND_DOUBLE = '{"$numberLong": "9007199254740993"}'  # 2^53 + 1


# --- required, type ---------------------------------------------------------------------------------------------------


def test_required_fails_for_null_and_missing() -> None:
    rule = {"rule": "required", "path": "/v"}
    assert failing(rule, ['{"v": 0}', '{"v": ""}', '{"v": []}', '{"v": null}', "{}"]) == ['{"v": null}', "{}"]


def test_required_below_an_object_fails_when_the_object_is_missing() -> None:
    rule = {"rule": "required", "path": "/o/v"}
    texts = ['{"o": {"v": 1}}', '{"o": {"w": 1}}', '{"o": 5}', "{}"]
    assert failing(rule, texts) == texts[1:]


def test_required_of_every_element() -> None:
    rule = {"rule": "required", "path": "/l/*/v"}
    texts = ['{"l": [{"v": 1},{"v": 2}]}', '{"l": []}', "{}", '{"l": [{"v": 1},{"w": 1}]}', '{"l": [{"v": 1},null]}']
    assert failing(rule, texts) == texts[3:]


def test_arrays_are_gone_through_without_a_star() -> None:
    """Then an array that is missing lacks the value, while one without elements has none to look at."""
    rule = {"rule": "required", "path": "/l/v"}
    texts = ['{"l": [{"v": 1}]}', '{"l": []}', "{}", '{"l": [{"v": 1},{}]}', '{"l": [null]}']
    assert failing(rule, texts) == texts[2:]


@pytest.mark.parametrize(
    ("types", "passes", "fails"),
    [
        (["string"], ['"x"', "null"], ["5", '{"$oid": "0123456789abcdef01234567"}']),
        (["long"], ["5", "5.0", LONG_BEYOND_DOUBLE], ["2.5", "NaN", "-0.0", "9.3e18", "true", '"5"']),
        (["double"], ["5", "2.5", "NaN"], [LONG_BEYOND_DOUBLE, '{"$numberDecimal": "1"}']),
        (["number"], ["5", "2.5", LONG_BEYOND_DOUBLE], ["true", '{"$numberDecimal": "1"}']),
        (["decimal"], ['{"$numberDecimal": "1"}', '{"$numberDecimal": "NaN"}'], ["1", '"1"']),
        (["boolean"], ["true"], ["1", '"true"']),
        (["date"], ['{"$date": 0}', '{"$date": 999999999999999}'], ['"2024-01-01"']),
        (["objectId"], ['{"$oid": "0123456789abcdef01234567"}'], ['"0123456789abcdef01234567"']),
        (["uuid"], ['{"$binary": "AAECAwQFBgcICQoLDA0ODw==","$type": "04"}'], ['{"$binary": "AAAA","$type": "04"}']),
        (["binary"], ['{"$binary": "AAAA","$type": "80"}'], ['{"$binary": "AAECAwQFBgcICQoLDA0ODw==","$type": "04"}']),
        (["regex"], ['{"$regex": "x","$options": ""}'], ['"x"']),
        (["timestamp"], ['{"$timestamp": {"t": 1,"i": 1}}'], ['{"$date": 0}']),
        (["object"], ['{"x": 1}', "{}"], ["[]", "5"]),
        (["array"], ["[1]", "[]"], ['{"x": 1}']),
        (["string", "long"], ['"x"', "5"], ["2.5"]),
    ],
)
def test_type(types: list[str], passes: list[str], fails: list[str]) -> None:
    assert failing_values({"rule": "type", "types": types}, *passes, *fails) == fails


# --- range ------------------------------------------------------------------------------------------------------------


def test_longs_are_compared_exactly() -> None:
    rule = {"rule": "range", "max": 2**53}
    assert failing_values(rule, str(2**53), LONG_BEYOND_DOUBLE) == [LONG_BEYOND_DOUBLE]


def test_a_double_bound_against_longs_is_exact() -> None:
    rule = {"rule": "range", "min": 4.5, "max": 9007199254740992.0}
    assert failing_values(rule, "5", "4", LONG_BEYOND_DOUBLE) == ["4", LONG_BEYOND_DOUBLE]


def test_an_integer_bound_that_no_double_is() -> None:
    """2^53 + 1 would round to 2^53 as a double, and let it pass."""
    rule = {"rule": "range", "min": 2**53 + 1}
    assert failing_values(rule, "9007199254740992.0", "9007199254740994.0", "1e300", "0.5") == [
        "9007199254740992.0",
        "0.5",
    ]


def test_a_bound_is_the_number_as_written() -> None:
    rule = {"rule": "range", "min": 0.1, "max": 0.1}
    assert failing_values(rule, "0.1", '{"$numberDecimal": "0.1"}', '{"$numberDecimal": "0.10"}') == []
    assert failing_values(rule, "0.10000000000000002", '{"$numberDecimal": "0.1000000001"}') != []


def test_decimals_are_compared_exactly() -> None:
    texts = [f'{{"$numberDecimal": "{n}"}}' for n in ("9007199254740993", "9007199254740992.0000000001", "-1E+30")]
    assert failing_values({"rule": "range", "max": 2**53}, *texts) == texts[:2]
    assert failing_values({"rule": "range", "min": -(10**40)}, *texts) == []


def test_bounds_finer_than_the_column() -> None:
    """A decimal(38,10) column has no 5E-11."""
    texts = [f'{{"$numberDecimal": "{n}"}}' for n in ("0", "0.0000000001")]
    assert failing_values({"rule": "range", "min": 5e-11}, *texts) == texts[:1]
    assert failing_values({"rule": "range", "max": 5e-11}, *texts) == texts[1:]
    assert failing_values({"rule": "enum", "values": [5e-11]}, *texts) == texts


@pytest.mark.parametrize("bounds", [{"min": 0}, {"max": 0}, {"min": -(2**70)}, {"max": 1e300}])
def test_nan_is_within_no_range(bounds: dict[str, Any]) -> None:
    texts = ["NaN", '{"$numberDecimal": "NaN"}']
    assert failing_values({"rule": "range", **bounds}, *texts) == texts


def test_infinity_is_beyond_every_bound() -> None:
    assert failing_values({"rule": "range", "min": 0}, "Infinity", "-Infinity") == ["-Infinity"]
    assert failing_values({"rule": "range", "max": 10**400}, "Infinity", "1e308") == ["Infinity"]


def test_what_is_no_number_is_within_no_range_of_numbers() -> None:
    texts = ['"5"', "true", '{"$date": 5}', "[5]"]
    assert failing_values({"rule": "range", "min": 0}, "5", "null", *texts) == texts


def test_dates_in_utc() -> None:
    rule = {"rule": "range", "min": "2024-01-01", "max": "2024-01-01T01:00:00.001+01:00"}
    dates = [f'{{"$date": {1704067200000 + ms}}}' for ms in (-1, 0, 1, 2)]
    assert failing_values(rule, *dates, "1704067200000") == [dates[0], dates[3], "1704067200000"]


def test_dates_that_no_column_holds() -> None:
    rule = {"rule": "range", "min": "1970-01-01"}
    assert failing_values(rule, '{"$date": 999999999999999}', '{"$date": -999999999999999}') == [
        '{"$date": -999999999999999}'
    ]


# --- length, regex, enum ----------------------------------------------------------------------------------------------


def test_length_counts_code_points_bytes_and_elements() -> None:
    rule = {"rule": "length", "min": 2, "max": 3}
    passes = ['"ab"', '"é😀"', '{"$binary": "AAAA","$type": "00"}', "[1,null]", "null"]
    fails = ['"a"', '"abcd"', '{"$binary": "AA==","$type": "00"}', "[]", "[1,2,3,4]", "22", '{"a": 1,"b": 2}']
    assert failing_values(rule, *passes, *fails) == fails


def test_a_uuid_has_16_bytes() -> None:
    text = '{"$binary": "AAECAwQFBgcICQoLDA0ODw==","$type": "04"}'
    assert failing_values({"rule": "length", "min": 16, "max": 16}, text) == []
    assert failing_values({"rule": "length", "min": 36}, text) == [text]


def test_a_pattern_matches_the_whole_text() -> None:
    rule = {"rule": "regex", "pattern": "a|ab"}
    assert failing_values(rule, '"a"', '"ab"', '"abc"', '"xa"', '"a\\n"', "5", "null") == [
        '"abc"',
        '"xa"',
        '"a\\n"',
        "5",
    ]


def test_a_pattern_cannot_leave_its_anchors() -> None:
    assert failing_values({"rule": "regex", "pattern": "a|.*b"}, '"xb"', '"ax"', '"bx"') == ['"ax"', '"bx"']
    assert failing_values({"rule": "regex", "pattern": "(?m)^a$"}, '"a"', '"a\\nb"') == ['"a\\nb"']


def test_a_pattern_is_matched_in_linear_time() -> None:
    """A backtracking engine would not come back from this one."""
    text = '"' + "a" * 5000 + '!"'
    assert failing_values({"rule": "regex", "pattern": "(a|a)*(a|a)*(a|a)*b"}, text) == [text]


def test_enum_compares_numbers_by_value() -> None:
    rule = {"rule": "enum", "values": [5, 0.1, "x", True]}
    passes = ["5", "5.0", '{"$numberDecimal": "5.00"}', "0.1", '{"$numberDecimal": "0.1"}', '"x"', "true", "null"]
    fails = ["1", '"5"', "false", "NaN", '{"$numberDecimal": "NaN"}', '"X"', '{"$oid": "0123456789abcdef01234567"}']
    assert failing_values(rule, *passes, *fails) == fails


def test_enum_is_exact_beyond_doubles() -> None:
    assert failing_values({"rule": "enum", "values": [2**53 + 1]}, LONG_BEYOND_DOUBLE, str(2**53)) == [str(2**53)]


def test_minus_zero_is_zero() -> None:
    assert failing_values({"rule": "enum", "values": [0]}, "0.0", "-0.0", "0.5") == ["0.5"]


# --- unique -----------------------------------------------------------------------------------------------------------

UNIQUE = {"rule": "unique", "path": "/v"}


def test_the_first_to_come_keeps_the_value() -> None:
    rejected = checked(compiled(UNIQUE), values('"a"', '"b"', '"a"', "null", "null", '"a"'))
    assert list(rejected) == [2, 5]


def test_one_document_may_come_twice() -> None:
    texts = values('"a"', '"a"', '"a"')
    assert list(checked(compiled(UNIQUE), texts, ["k", "k", "m"])) == [2]


@pytest.mark.parametrize(
    ("one", "other"),
    [("5", "5.0"), ("0.0", "-0.0"), ("NaN", "NaN"), ("5", '{"$numberDecimal": "5.0"}'), ('{"a": 1}', '{"a": 1.0}')],
)
def test_values_are_the_same_by_value(one: str, other: str) -> None:
    assert list(checked(compiled(UNIQUE), values(one, other, '"x"'))) == [1]


def test_values_of_two_kinds_are_not_the_same() -> None:
    assert not checked(compiled(UNIQUE), values('"5"', "5", "true", "1", '"0123456789abcdef01234567"'))


def test_a_rejected_document_keeps_no_value() -> None:
    validation = compiled({"rule": "range", "path": "/n", "min": 0}, UNIQUE)
    texts = ['{"v": "a","n": -1}', '{"v": "a","n": 1}', '{"v": "a","n": 2}']
    assert {row: each.rule for row, each in checked(validation, texts).items()} == {0: "range:/n", 2: "unique:/v"}


def test_elements_are_unique_among_documents() -> None:
    rule = {"rule": "unique", "path": "/v/*"}
    assert list(checked(compiled(rule), values('["a","a"]', '["b","a"]', '["c"]'))) == [1]


# --- compare ----------------------------------------------------------------------------------------------------------


def pairs(*found: tuple[str, str]) -> list[str]:
    return [f'{{"a": {a},"b": {b}}}' for a, b in found]


@pytest.mark.parametrize(
    ("operator", "fails"),
    [
        ("==", [("2", "1"), ('"a"', "1")]),
        ("!=", [("1", "1.0")]),
        ("<", [("2", "1"), ("1", "1.0"), ('"a"', "1")]),
        ("<=", [("2", "1"), ('"a"', "1")]),
        (">", [("1", "1.0"), ('"a"', "1")]),
        (">=", [('"a"', "1")]),
    ],
)
def test_compare(operator: str, fails: list[tuple[str, str]]) -> None:
    """Values of two kinds have no order, and are not equal."""
    rule = {"rule": "compare", "path": "/a", "operator": operator, "other": "/b"}
    texts = pairs(("2", "1"), ("1", "1.0"), ('"a"', "1"), ("null", "1"), ("1", "null"))
    assert failing(rule, texts) == pairs(*fails)


def test_compare_is_exact() -> None:
    rule = {"rule": "compare", "path": "/a", "operator": ">", "other": "/b"}
    texts = pairs((LONG_BEYOND_DOUBLE, "9007199254740992.0"), ('{"$numberDecimal": "0.1"}', "0.1"), ('"é"', '"z"'))
    assert failing(rule, texts) == pairs(('{"$numberDecimal": "0.1"}', "0.1"))


def test_compare_dates_and_other_kinds() -> None:
    later = {"rule": "compare", "path": "/a", "operator": "<=", "other": "/b"}
    assert failing(later, pairs(('{"$date": 1}', '{"$date": 0}'), ('{"$date": 0}', '{"$date": 0}'))) == pairs(
        ('{"$date": 1}', '{"$date": 0}')
    )
    same = later | {"operator": "=="}
    assert failing(same, pairs(("true", "true"), ('{"x": 1}', '{"x": 1.0}'), ("[1]", "[2]"))) == pairs(("[1]", "[2]"))
    assert failing(later, pairs(("true", "true"))) == pairs(("true", "true"))


def test_nan_is_not_itself() -> None:
    rule = {"rule": "compare", "path": "/a", "operator": "==", "other": "/b"}
    assert failing(rule, pairs(("NaN", "NaN"), ("1", "1"))) == pairs(("NaN", "NaN"))
    below = rule | {"operator": "<"}
    texts = pairs(('{"$numberDecimal": "NaN"}', '{"$numberDecimal": "5"}'), ("1", '{"$numberDecimal": "NaN"}'))
    assert failing(below, texts) == texts
    assert failing(rule | {"operator": "!="}, texts) == []


def test_fields_of_an_element_are_compared_within_it() -> None:
    rule = {"rule": "compare", "path": "/l/*/from", "operator": "<", "other": "/l/*/to"}
    texts = ['{"l": [{"from": 1,"to": 2},{"from": 3,"to": 4}]}', '{"l": [{"from": 1,"to": 2},{"from": 4,"to": 3}]}']
    assert failing(rule, [*texts, '{"l": []}', "{}"]) == [texts[1]]


def test_elements_are_compared_with_a_field_of_the_document() -> None:
    rule = {"rule": "compare", "path": "/l/*/n", "operator": "<=", "other": "/max"}
    texts = ['{"l": [{"n": 1},{"n": 5}],"max": 5}', '{"l": [{"n": 1},{"n": 6}],"max": 5}', '{"l": [{"n": 6}]}']
    assert failing(rule, texts) == [texts[1]]


def test_elements_of_two_arrays_are_compared_each_with_each() -> None:
    rule = {"rule": "compare", "path": "/l/*", "operator": "<", "other": "/m/*"}
    texts = ['{"l": [1,2],"m": [3]}', '{"l": [1],"m": [3,0]}', '{"l": [1],"m": []}', '{"l": [5,1],"m": [4,9]}']
    assert failing(rule, texts) == [texts[1], texts[3]]


# --- whatever the columns are -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [t.STRING, t.DOUBLE, t.JSON, t.TEXT, t.Number(4), t.Decimal(10), t.List(t.LONG)])
def test_a_value_that_its_column_does_not_hold_is_validated(type_: t.FieldType) -> None:
    schema = DocumentSchema((t.Field("v", type_),))
    texts = values("5", "50", '"x"', "2.5", LONG_BEYOND_DOUBLE, "[5]")
    validation = compiled({"rule": "range", "path": "/v", "min": 0, "max": 10})
    assert list(checked(validation, texts, schema=schema)) == [1, 2, 4, 5]


def test_what_lies_in_a_json_column_is_validated() -> None:
    schema = DocumentSchema((t.Field("v", t.JSON),))
    validation = compiled({"rule": "range", "path": "/v/*/n", "min": 0})
    assert list(checked(validation, values('[{"n": 1}]', '[{"n": -1}]', '[{"n": "x"}]', "5"), schema=schema)) == [1, 2]


def test_a_document_that_repeats_a_name_is_validated() -> None:
    """Both values count: who reads it may see either."""
    texts = ['{"v": -1,"v": 2}', '{"v": 1,"v": 2}', '{"v": {"n": 1,"n": -1}}']
    assert list(checked(compiled({"rule": "range", "path": "/v", "min": 0}), texts)) == [0, 2]


def test_an_invalid_text_is_no_concern_of_validation() -> None:
    assert list(checked(compiled({"rule": "required", "path": "/v"}), ['{"v": ', "{}", '{"v": 1}'])) == [1]


def test_names_that_need_escaping() -> None:
    rule = {"rule": "range", "path": '/a~1b ~0"c', "min": 0}
    texts = ['{"a/b ~\\"c": 5}', '{"a/b ~\\"c": -5}', '{"a/b ~\\"c": "x"}']
    assert failing(rule, texts) == texts[1:]


# --- rejections -------------------------------------------------------------------------------------------------------


def test_a_rejection_names_rule_and_field_and_no_value() -> None:
    validation = compiled({"rule": "enum", "path": "/card", "values": ["SECRET-1"]}, policy="skip")
    (rejection,) = checked(validation, ['{"card": "SECRET-2"}']).values()
    assert rejection == Rejection(
        ReasonCode.VALIDATION_FAILED, "rule enum:/card: /card is not one of the rule's values", "skip", "enum:/card"
    )


def test_a_rule_may_have_a_name_and_a_policy() -> None:
    rule = {"rule": "required", "path": "/v", "name": "has-v", "on_failure": "fail"}
    (rejection,) = checked(compiled(rule), ["{}"]).values()
    assert (rejection.rule, rejection.policy, rejection.message) == ("has-v", "fail", "rule has-v: /v has no value")


def test_the_first_rule_that_fails_is_named() -> None:
    validation = compiled(
        {"rule": "required", "path": "/a"},
        {"rule": "type", "path": "/b", "types": ["long"]},
        {"rule": "sql", "expression": "b > 0"},
    )
    texts = ['{"b": "x"}', '{"a": 1,"b": "x"}', '{"a": 1,"b": -1}', '{"a": 1,"b": 1}']
    found = {row: each.rule for row, each in checked(validation, texts).items()}
    assert found == {0: "required:/a", 1: "type:/b", 2: "sql:3"}


def test_rules_of_other_collections_are_left_out() -> None:
    rules = [{"rule": "required", "path": f"/{name}", "collections": [name]} for name in ("orders", "users")]
    assert [rule.rejection.rule for rule in compiled(*rules).rules] == ["required:/orders"]


# --- rules that are refused when they are set -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"rule": "range", "path": "/v"}, "rule 1 (range /v): has no bounds: give min, max or both"),
        ({"rule": "range", "path": "/v", "min": 2, "max": 1}, "min above its max"),
        ({"rule": "range", "path": "/v", "min": "2024-02-01", "max": "2024-01-01"}, "min above its max"),
        ({"rule": "range", "path": "/v", "min": 1, "max": "2024-01-01"}, "give two of one kind"),
        ({"rule": "range", "path": "/v", "min": "abc"}, "neither a number nor an ISO 8601 date"),
        ({"rule": "range", "path": "/v", "min": float("nan")}, "no finite number"),
        ({"rule": "range", "path": "/v", "max": float("inf")}, "no finite number"),
        ({"rule": "length", "path": "/v"}, "has no bounds"),
        ({"rule": "length", "path": "/v", "min": 3, "max": 2}, "min above its max"),
        ({"rule": "regex", "path": "/v", "pattern": "(a"}, "RE2 refuses"),
        ({"rule": "regex", "path": "/v", "pattern": "(hunter2-planted"}, "missing ))"),
        ({"rule": "regex", "path": "/v", "pattern": "a)|(?:b"}, "RE2 refuses"),
        ({"rule": "regex", "path": "/v", "pattern": "\\Qa"}, "RE2 refuses"),
        ({"rule": "regex", "path": "/v", "pattern": "(?=a)"}, "RE2 refuses"),
        ({"rule": "regex", "path": "/v", "pattern": "(a)\\1"}, "RE2 refuses"),
        ({"rule": "enum", "path": "/v", "values": [float("inf")]}, "not finite"),
        ({"rule": "compare", "path": "/v", "operator": "<", "other": "/v"}, "compares a field with itself"),
        ({"rule": "compare", "path": "/v", "operator": "<", "other": "/*/v"}, "names no field"),
        ({"rule": "required", "path": "/*"}, "names no field"),
        ({"rule": "sql", "expression": "a >"}, "rule 1 (sql): is no SQL expression"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRules) as refused:
        check_validation(QualitySpec.model_validate({"validation": [rule]}))
    assert reason in str(refused.value)


def test_two_rules_of_one_name_are_refused() -> None:
    rules = [{"rule": "required", "path": path, "name": "same"} for path in ("/a", "/b")]
    with pytest.raises(InvalidRules, match=r"rule 2 .*: rule 1 is called same too"):
        check_validation(QualitySpec.model_validate({"validation": rules}))
