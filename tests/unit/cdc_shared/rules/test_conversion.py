"""Convert rules, value by value: another type that says the same, or the value as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp

from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression
from cdc_shared.documents.canonical import canonical_text
from cdc_shared.rules.conversion import Target, conversion

pytestmark = pytest.mark.unit

CONVERTED: list[tuple[Any, Target, Any]] = [
    (5, "string", "5"), (5.0, "string", "5"), (2.5, "string", "2.5"), (1e300, "string", "1e+300"),
    (-0.0, "string", "-0.0"), (math.inf, "string", "Infinity"), (True, "string", "true"),
    (Decimal128("1.50"), "string", "1.5"), (Decimal128("1E+3"), "string", "1000"),
    (Decimal128("-0.00"), "string", "-0"),
    (Decimal128("1E-50"), "string", "1E-50"), (ObjectId("00" * 12), "string", "00" * 12),
    (DatetimeMS(0), "string", "1970-01-01T00:00:00Z"), (DatetimeMS(-500), "string", "1969-12-31T23:59:59.5Z"),
    (DatetimeMS(-62_135_596_800_000), "string", "0001-01-01T00:00:00Z"),
    (Binary(bytes(16), 4), "string", "00000000-0000-0000-0000-000000000000"),
    ("-7", "long", -7), ("9223372036854775807", "long", Int64(2**63 - 1)), (5.0, "long", 5), (True, "long", 1),
    (Decimal128("5.00"), "long", 5), (DatetimeMS(7), "long", Int64(7)),
    ("2.5", "double", 2.5), ("-0", "double", -0.0), ("NaN", "double", math.nan), ("1e3", "double", 1000.0),
    (5, "double", 5.0), (Int64(2**60), "double", 2.0**60), (Decimal128("0.1"), "double", 0.1),
    ("1.50", "decimal", Decimal128("1.50")), (5, "decimal", Decimal128("5")), (2.5, "decimal", Decimal128("2.5")),
    (math.inf, "decimal", Decimal128("Infinity")),
    ("true", "boolean", True), ("false", "boolean", False), (0, "boolean", False), (1.0, "boolean", True),
    ("2024-02-29", "date", DatetimeMS(1_709_164_800_000)), ("1970-01-01T00:00:00.5Z", "date", DatetimeMS(500)),
    ("1970-01-01 02:00:00+02:00", "date", DatetimeMS(0)), (5, "date", DatetimeMS(5)), (5.0, "date", DatetimeMS(5)),
    ({"b": 5.0, "a": None}, "json", '{"b": 5}'), (["x", 2.5], "json", '["x",2.5]'), ("x", "json", '"x"'),
    (Decimal128("2.50"), "json", '{"$numberDecimal": "2.5"}'),
]  # fmt: skip

LEFT: list[tuple[Any, Target]] = [
    ("05", "long"), ("+5", "long"), (" 5", "long"), ("5.0", "long"), ("9223372036854775808", "long"), ("-0", "long"),
    (2.5, "long"), (-0.0, "long"), (1e19, "long"), (math.nan, "long"), (Decimal128("2.5"), "long"),
    (Decimal128("-0"), "long"), (Decimal128("NaN"), "long"), (ObjectId("00" * 12), "long"),
    ("0.12345678901234567890", "double"), ("1e999", "double"), ("1e99999999999999999999", "double"), ("0x5", "double"),
    ("1_0", "double"), ("9" * 500, "double"), (Int64(2**53 + 1), "double"),
    (Decimal128("0.12345678901234567890"), "double"),
    ("9" * 35, "decimal"), ("1_0", "decimal"), ("", "decimal"),
    ("TRUE", "boolean"), ("1", "boolean"), (2, "boolean"), (-0.0, "boolean"), (Decimal128("1"), "boolean"),
    ("2024-02-30", "date"), ("2024-02-29T10:00:00", "date"), ("2024-02-29T24:00:00Z", "date"), ("yesterday", "date"),
    (2.5, "date"), (True, "date"), (Decimal128("5"), "date"),
    (DatetimeMS(2**62), "string"), (Binary(b"x"), "string"), (RegularExpression("a", ""), "string"),
    (Timestamp(1, 2), "string"), (Code("f()"), "string"), ({"a": 1}, "string"), ([1], "long"), ({}, "date"),
    (DuplicateKeys((("a", 1), ("a", 2))), "double"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "to", "expected"), CONVERTED, ids=str)
def test_converted(value: Any, to: Target, expected: Any) -> None:
    result = conversion(to)(value)
    assert type(result) is type(expected)
    assert canonical_text(result) == canonical_text(expected)


@pytest.mark.parametrize(("value", "to"), LEFT, ids=str)
def test_left_as_it_is(value: Any, to: Target) -> None:
    assert conversion(to)(value) is value


def test_names_that_come_twice_are_kept_in_json() -> None:
    twice = {"x": DuplicateKeys((("a", 1), ("a", 2)))}
    assert conversion("json")(twice) == '{"x":{"a":{"$numberInt":"1"},"a":{"$numberInt":"2"}}}'
