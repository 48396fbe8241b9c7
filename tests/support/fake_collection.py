"""A source for unit tests of the source scan: one collection in memory, asked as `MongodbSource` is.

It compares `_id`s as MongoDB does: only within a bracket, and NaN with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import bson
from bson import Binary, Code, CodecOptions, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from pymongo import ReadPreference
from pymongo.client_session import ClientSession

from reconciliation.sources.chunks import ALL, Bracket

AS_STORED = CodecOptions[dict[str, Any]](
    uuid_representation=UuidRepresentation.UNSPECIFIED, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_BRACKETS: dict[type, Bracket] = {
    MinKey: Bracket.MIN_KEY,
    type(None): Bracket.NULL,
    int: Bracket.NUMBER,
    Int64: Bracket.NUMBER,
    float: Bracket.NUMBER,
    Decimal128: Bracket.NUMBER,
    str: Bracket.STRING,
    dict: Bracket.OBJECT,
    bytes: Bracket.BINARY,
    Binary: Bracket.BINARY,
    ObjectId: Bracket.OBJECT_ID,
    bool: Bracket.BOOLEAN,
    DatetimeMS: Bracket.DATE,
    Timestamp: Bracket.TIMESTAMP,
    Code: Bracket.CODE,
    MaxKey: Bracket.MAX_KEY,
}


def bracket_of_value(value: Any) -> Bracket:
    """The bracket of a decoded `_id`."""
    return _BRACKETS[type(value)]


def order_of(value: Any) -> Any:
    """What sorts decoded values as MongoDB does."""
    bracket = bracket_of_value(value)
    return ALL.index(bracket), _ORDERS.get(bracket, lambda value: value)(value)


def _number(value: Any) -> tuple[bool, Any]:
    plain = value.to_decimal() if isinstance(value, Decimal128) else value
    return (False, 0) if math.isnan(plain) else (True, plain)


_ORDERS: dict[Bracket, Any] = {
    Bracket.MIN_KEY: lambda _: 0,
    Bracket.NULL: lambda _: 0,
    Bracket.MAX_KEY: lambda _: 0,
    Bracket.NUMBER: _number,
    Bracket.STRING: lambda value: value.encode(),
    Bracket.OBJECT: lambda value: [(order_of(each)[0], name, order_of(each)) for name, each in value.items()],
    Bracket.BINARY: lambda value: (len(value), getattr(value, "subtype", 0), bytes(value)),
    Bracket.DATE: int,
    Bracket.TIMESTAMP: lambda value: (value.time, value.inc),
    Bracket.CODE: str,
}


def matches(query: dict[str, Any], value: Any) -> bool:
    """Whether a document with this `_id` is found."""
    if "$or" in query:
        return any(matches(each, value) for each in query["$or"])
    condition = query.get("_id", {})
    if not isinstance(condition, dict):  # equality, of which the scan uses one
        assert math.isnan(condition)
        return _is_nan(value)
    return all(_meets(operator, operand, value) for operator, operand in condition.items())


def _meets(operator: str, operand: Any, value: Any) -> bool:
    if operator == "$type":
        return bracket_of_value(value).value in operand
    if bracket_of_value(value) is not bracket_of_value(operand) or _is_nan(value) or _is_nan(operand):
        return False
    left, right = order_of(value), order_of(operand)
    return bool({"$gt": left > right, "$gte": left >= right, "$lt": left < right}[operator])


def _is_nan(value: Any) -> bool:
    return bracket_of_value(value) is Bracket.NUMBER and not _number(value)[0]


class FakeCollection:
    """`failures[n]` is raised instead of the batch with number n, counted over all cursors."""

    def __init__(self, documents: Sequence[dict[str, Any]]) -> None:
        self.documents = sorted(documents, key=lambda each: order_of(each["_id"]))
        self.failures: dict[int, Exception] = {}
        self.snapshots: Exception | Timestamp = Timestamp(2_000_000_000, 1)
        """What a session at a snapshot answers: its time, or an error."""
        self.preference: Any = ReadPreference.PRIMARY
        """Of the connection string."""
        self.counted: Exception | None = None
        self.cursors: list[dict[str, Any]] = []
        """What each was asked with."""
        self.sessions: list[FakeSession] = []
        self.commands: list[tuple[str, Any]] = []
        self.sampled = 0
        self.closed_cursors = 0
        self._batches = 0

    # --- MongodbSource ------------------------------------------------------------------------------------------------

    @contextmanager
    def asking(self, what: str) -> Iterator[Any]:
        yield SimpleNamespace(client=self, operation_time=Timestamp(1_900_000_000, 7))

    def close(self) -> None:
        pass

    # --- the client and the database ----------------------------------------------------------------------------------

    @property
    def read_preference(self) -> Any:
        return self.preference

    @property
    def admin(self) -> Any:
        return SimpleNamespace(command=lambda name, **how: self.commands.append((name, how["read_preference"])))

    def __getitem__(self, name: str) -> FakeCollection:
        return self

    def start_session(self, snapshot: bool = False, causal_consistency: bool = False) -> FakeSession:
        session = FakeSession(snapshot, causal_consistency)
        self.sessions.append(session)
        return session

    # --- the collection -----------------------------------------------------------------------------------------------

    def get_collection(self, name: str, **options: Any) -> FakeCollection:
        self.options = options
        return self

    def estimated_document_count(self, **_: Any) -> int:
        return len(self.documents)

    def count_documents(self, query: dict[str, Any], **_: Any) -> int:
        if self.counted is not None:
            raise self.counted
        return len(self.documents)

    def aggregate(self, stages: list[dict[str, Any]], **_: Any) -> Iterator[Any]:
        size = stages[0]["$sample"]["size"]
        self.sampled = size
        step = max(1, len(self.documents) // size)
        for each in self.documents[::step]:
            yield SimpleNamespace(raw=bson.encode({"_id": each["_id"]}))

    def find_raw_batches(self, query: dict[str, Any], projection: Any, **options: Any) -> FakeCursor:
        decoded = bson.decode(bson.encode(query), AS_STORED)
        self.cursors.append({"query": decoded, "projection": projection, **options})
        found = [each for each in self.documents if matches(decoded, bson.decode(bson.encode(each), AS_STORED)["_id"])]
        if projection:
            found = [{"_id": each["_id"]} for each in found]
        return FakeCursor(self, found, options["batch_size"], options["session"])

    def next_batch(self, cursor: FakeCursor) -> bytes:
        number, self._batches = self._batches, self._batches + 1
        if number in self.failures:
            raise self.failures[number]
        if cursor.session.at_snapshot:
            if isinstance(self.snapshots, Exception):
                raise self.snapshots
            cursor.session._snapshot_time = self.snapshots
        batch, cursor.left = cursor.left[: cursor.size], cursor.left[cursor.size :]
        if not batch and cursor.begun:
            raise StopIteration
        cursor.begun = True
        return b"".join(map(bson.encode, batch))


class FakeSession(ClientSession):
    """Notes what it is asked for."""

    def __init__(self, at_snapshot: bool, causal: bool) -> None:
        self.at_snapshot = at_snapshot
        self.causal = causal
        self.not_before: Timestamp | None = None
        self.ended = False
        self._snapshot_time: Any = None

    def advance_operation_time(self, operation_time: Timestamp) -> None:
        self.not_before = operation_time

    def end_session(self) -> None:
        self.ended = True

    def __del__(self) -> None:
        pass


class FakeCursor:
    """Of one query."""

    def __init__(self, collection: FakeCollection, left: list[dict[str, Any]], size: int, session: FakeSession) -> None:
        self.collection = collection
        self.left = left
        self.size = size
        self.session = session
        self.begun = False

    def __iter__(self) -> FakeCursor:
        return self

    def __next__(self) -> bytes:
        return self.collection.next_batch(self)

    def close(self) -> None:
        self.collection.closed_cursors += 1
