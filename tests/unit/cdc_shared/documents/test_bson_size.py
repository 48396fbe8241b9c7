"""The size that MongoDB counts, without encoding the document."""

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson_cases import bson_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_shared.documents import document_text, parse_document
from cdc_shared.documents.bson_size import MAX_GROWTH, bson_size, size_bound
from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined

pytestmark = pytest.mark.unit

ONE_OF_EACH = {
    "": None,
    "é": "naïve 🙂",
    "int": -1,
    "long": Int64(2**40),
    "double": 1.5,
    "bool": True,
    "id": ObjectId("64b7f0c2a1b2c3d4e5f60718"),
    "date": DatetimeMS(-5),
    "decimal": Decimal128("1E+6144"),
    "binary": Binary(b"abc", 0),
    "old": Binary(b"abc", 2),
    "ts": Timestamp(1, 2),
    "code": Code("f()"),
    "scoped": Code("f()", {"x": 1}),
    "min": MinKey(),
    "max": MaxKey(),
    "list": [1, "two", [3, None], {}],
    "sub": {"a": {"b": []}},
}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_each_type(name: str) -> None:
    document = {name: ONE_OF_EACH[name]}
    assert bson_size(document) == len(bson.encode(document))


def test_a_document_of_all() -> None:
    assert bson_size(ONE_OF_EACH) == len(bson.encode(ONE_OF_EACH))


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (RegularExpression("^a", "im"), 6),
        (Symbol("ab"), 7),
        (Undefined(), 0),
        (DbPointer("db.c", "64b7f0c2a1b2c3d4e5f60718"), 21),
        (DuplicateKeys((("a", 1), ("a", 2))), 5 + 2 * 7),
    ],
)
def test_types_that_the_driver_cannot_write(value: object, size: int) -> None:
    """By bsonspec.org: regex two C strings; symbol a string; dbPointer a string and 12 bytes."""
    assert bson_size(value) == size


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=2)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20)


@given(st.dictionaries(NAMES, VALUES))
def test_any_document(document: dict[str, object]) -> None:
    assert bson_size(document) == len(bson.encode(document))


@pytest.mark.parametrize("element", ["1", "0.5", "[]", "{}", "null", "true", '""', "-1"])
@pytest.mark.parametrize("separator", [",", ", "])
def test_no_text_grows_by_more_than_is_allowed_for(element: str, separator: str) -> None:
    """The detector looks only into texts that could be at fault."""
    text = '{"a": [' + separator.join([element] * 20_000) + "]}"
    assert bson_size(parse_document(text)) <= MAX_GROWTH * len(text)
    assert bson_size(parse_document(text)) <= size_bound(text)


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES))
def test_no_document_is_beyond_its_bound(document: dict[str, object]) -> None:
    raw = bson.encode(document)
    assert len(raw) <= size_bound(document_text(raw))


def test_the_corner_values_are_within_their_bounds() -> None:
    for case in bson_cases():
        assert len(case.raw) <= size_bound(document_text(case.raw)), case.id


def test_the_bound_of_ordinary_text_is_near_its_size() -> None:
    document = {"_id": 1, "text": "one, two {three} " * 1000, "binary": Binary(bytes(9000))}
    assert size_bound(document_text(bson.encode(document))) < 2.5 * len(bson.encode(document))
