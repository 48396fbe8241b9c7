"""A pipeline's source for unit tests: documents in memory, asked as `MongodbSource` is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import bson
from bson import Timestamp
from bson.raw_bson import RawBSONDocument


class FakeSource:
    """`documents` are the collections' documents; each `asking` first raises the next of `failures`."""

    TIME_S = 1_800_000_000

    def __init__(self) -> None:
        self.documents: dict[str, Sequence[Mapping[str, Any] | bytes]] = {}
        self.failures: list[Exception] = []
        self.queries = 0

    @contextmanager
    def asking(self, what: str) -> Iterator[Any]:
        if self.failures:
            raise self.failures.pop(0)
        yield SimpleNamespace(operation_time=Timestamp(self.TIME_S, 1))

    def database(self, name: str) -> FakeSource:
        return self

    def get_collection(self, name: str, **options: Any) -> SimpleNamespace:
        """Every read must be one that no replaced primary can answer."""
        assert options["read_concern"].level == "linearizable"
        assert options["read_preference"].name == "Primary"
        return SimpleNamespace(find=lambda query, **_: self._find(name, query))

    def close(self) -> None:
        pass

    def _find(self, name: str, query: Any) -> list[RawBSONDocument]:
        self.queries += 1
        raws = [each if isinstance(each, bytes) else bson.encode(each) for each in self.documents.get(name, ())]
        # Compared as the server does, numbers by value: Python's 5 == 5.0 serves for that.
        wanted = bson.decode(bson.encode(query))["_id"]["$in"]
        return [RawBSONDocument(raw) for raw in raws if bson.decode(raw)["_id"] in wanted]
