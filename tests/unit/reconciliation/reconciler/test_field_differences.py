"""Where two documents differ: as the canonical form has it, and as people name it."""

import json
from random import Random
from typing import Any

import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId

from cdc_shared.documents import canonical_document
from cdc_shared.documents.bson_values import DuplicateKeys
from reconciliation.reconciler.field_differences import MAX_FIELDS, field_differences

pytestmark = pytest.mark.unit


def differences(document: Any, row: Any) -> list[tuple[str, str]]:
    return [(each.pointer, str(each.how)) for each in field_differences(document, row)]


@pytest.mark.parametrize(
    ("document", "row", "expected"),
    [
        ({"a": 1}, {"a": 2}, [("/a", "value")]),
        ({"a": 1}, {"a": 2.5}, [("/a", "value")]),
        ({"a": 1}, {"a": "1"}, [("/a", "type")]),
        ({"a": 1}, {"a": Decimal128("1")}, [("/a", "type")]),
        ({"a": 0.0}, {"a": -0.0}, [("/a", "value")]),
        ({"a": DatetimeMS(0)}, {"a": DatetimeMS(3_600_000)}, [("/a", "value")]),
        ({"a": ObjectId(bytes(12))}, {"a": "0" * 24}, [("/a", "type")]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [("/a/b/c", "value")]),
        ({"a": {"b": 1}}, {"a": {}}, [("/a/b", "only_in_source")]),
        ({"a": {}}, {"a": {"b": 1}}, [("/a/b", "only_in_table")]),
        ({"a": {}}, {}, [("/a", "only_in_source")]),
        ({}, {"a": []}, [("/a", "only_in_table")]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [("/a/1/b", "value")]),
        ({"a": [1, None]}, {"a": [1, 2]}, [("/a/1", "type")]),
        ({"a": [1]}, {"a": [1, 2]}, [("/a", "value")]),
        ({"a": [1]}, {"a": {"0": 1}}, [("/a", "type")]),
        ({"a/b": 1, "~": 2}, {"a/b": 2, "~": 1}, [("/a~1b", "value"), ("/~0", "value")]),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, [("/a", "only_in_source"), ("/b", "value"), ("/c", "only_in_table")]),
        (DuplicateKeys((("a", 1), ("a", 2))), {"a": 2}, [("", "type")]),
        (DuplicateKeys((("a", 1), ("a", 2))), DuplicateKeys((("a", 1), ("a", 3))), [("", "value")]),
    ],
)
def test_what_differs_is_named(document: Any, row: Any, expected: list[tuple[str, str]]) -> None:
    assert differences(document, row) == expected


@pytest.mark.parametrize(
    ("document", "row"),
    [
        ({"a": 1}, {"a": Int64(1)}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": None}, {}),
        ({"a": {"b": None}}, {"a": {}}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": Decimal128("1.0")}, {"a": Decimal128("1.00")}),
        ({"a": float("nan")}, {"a": float("nan")}),
    ],
)
def test_what_the_canonical_form_does_not_tell_apart_is_equal(document: Any, row: Any) -> None:
    assert differences(document, row) == []


def test_there_is_an_end_to_it() -> None:
    assert len(differences({str(i): i for i in range(500)}, {})) == MAX_FIELDS


def test_some_field_differs_exactly_when_the_canonical_forms_do(rng: Random) -> None:
    for _ in range(3000):
        one, other = _document(rng), _document(rng)
        is_equal = canonical_document(one) == canonical_document(other)
        assert (differences(one, other) == []) == is_equal, json.dumps([str(one), str(other)])


def _document(rng: Random) -> dict[str, Any]:
    return {name: _value(rng, 2) for name in rng.sample("abc", rng.randrange(3))}


def _value(rng: Random, depth: int) -> Any:
    plain = [None, 0, -0.0, 1.0, 1, "1", "", True, Binary(b"", 0), Binary(b"", 5), Decimal128("1"), DatetimeMS(1)]
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(plain)
    if rng.random() < 0.5:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    return {name: _value(rng, depth - 1) for name in rng.sample("xy", rng.randrange(3))}
