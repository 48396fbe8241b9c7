"""What a filter may hold, and what comes of one that is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bson
import pytest
from bson import DatetimeMS, ObjectId, Regex
from bson.raw_bson import RawBSONDocument
from pymongo.errors import ExecutionTimeout

from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.source.document_filter import (
    MAX_DEPTH,
    MAX_FILTER_BYTES,
    InvalidFilter,
    TooManyMatches,
    matching_keys,
    parse_filter,
)

pytestmark = pytest.mark.unit

ITEMS = Collection("shop", "items")
OID = "64bb5a801a2b3c4d5e000000"


class Source:
    """Documents in memory; notes the query."""

    def __init__(self, *documents: dict[str, Any], error: Exception | None = None) -> None:
        self.documents = documents
        self.error = error
        self.query: Any = None
        self.options: dict[str, Any] = {}

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        yield None

    def database(self, name: str) -> Source:
        return self

    def get_collection(self, name: str, **_: Any) -> Source:
        return self

    def find(self, query: Any, projection: Any, **options: Any) -> Iterator[RawBSONDocument]:
        assert projection == {"_id": 1}
        self.query, self.options = query, options
        for document in self.documents[: options["limit"]]:
            yield RawBSONDocument(bson.encode(document))
        if self.error is not None:
            raise self.error


def keys(source: Source, limit: int = 10) -> list[str]:
    return matching_keys(source, ITEMS, parse_filter({"n": 1}), limit)  # type: ignore[arg-type]


def test_values_are_bson_s_and_operators_stay() -> None:
    told = {
        "_id": {"$in": [{"$oid": OID}, 5]},
        "at": {"$gte": {"$date": "2024-01-01T00:00:00Z"}},
        "$or": [{"name": {"$regex": "^a", "$options": "i"}}, {"name": {"$regex": "b"}}, {"tags": {"$size": 0}}],
        "address": {"city": "x", "zip": {"$numberLong": "8"}},
    }
    assert parse_filter(told) == {
        "_id": {"$in": [ObjectId(OID), 5]},
        "at": {"$gte": DatetimeMS(1704067200000)},
        "$or": [{"name": Regex("^a", "i")}, {"name": {"$regex": "b"}}, {"tags": {"$size": 0}}],
        "address": {"city": "x", "zip": 8},
    }


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "empty"),
        ({"$where": "sleep(1000)"}, r"\$where"),
        ({"$expr": {"$gt": ["$a", "$b"]}}, r"\$expr"),
        ({"$and": [{"a": 1}, {"$or": [{"$where": "1"}]}]}, r"at /\$and/1/\$or/0 the operator \$where"),
        ({"a": {"$elemMatch": {"b": {"$not": {"$function": {"body": "x"}}}}}}, r"\$function"),
        ({"a": {"$date": "yesterday"}}, r"at /a the operator \$date"),
        ({"$text": {"$search": "x"}}, r"\$text"),
        ({"$jsonSchema": {}}, r"\$jsonSchema"),
        ({"$comment": "x"}, r"\$comment"),
        ({"a": {"$code": "x"}}, "Code"),
        ({"a": {"$symbol": "x"}}, "Symbol"),
        ({"a": {"$undefined": True}}, "Undefined"),
        ({"$oid": OID}, "single value"),
        ({"a": 2**63}, "64 bits"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a\0b": 1}, "NUL"),
        ({"a": "x" * MAX_FILTER_BYTES}, "several parts"),
    ],
)
def test_what_a_filter_may_not_hold(told: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidFilter, match=why) as raised:
        parse_filter(told)
    assert "sleep" not in str(raised.value)


def test_how_deep_a_filter_may_be() -> None:
    def nested(levels: int) -> dict[str, Any]:
        told: Any = 1
        for _ in range(levels):
            told = {"a": told}
        return dict(told)

    assert parse_filter(nested(MAX_DEPTH - 1))
    for levels in (MAX_DEPTH, 100_000):  # the second would break whatever walks it by recursion
        with pytest.raises(InvalidFilter, match="too deep"):
            parse_filter(nested(levels))


def test_keys_are_debezium_s() -> None:
    source = Source({"_id": 5}, {"_id": "x"}, {"_id": ObjectId(OID)}, {"_id": {"a": 1}})
    assert keys(source) == ["5", '"x"', f'{{"$oid": "{OID}"}}', '{"a": 1}']
    assert source.query == {"n": 1}
    assert source.options["max_time_ms"] == 15_000


def test_no_more_than_asked_for() -> None:
    documents = [{"_id": n} for n in range(4)]
    assert len(keys(Source(*documents), limit=4)) == 4
    with pytest.raises(TooManyMatches, match=r"more than 3 documents of shop\.items"):
        keys(Source(*documents), limit=3)


def test_a_source_that_looks_too_long_says_what_helps() -> None:
    with pytest.raises(Fatal, match="make an index"):
        keys(Source(error=ExecutionTimeout("operation exceeded time limit", 50)))
