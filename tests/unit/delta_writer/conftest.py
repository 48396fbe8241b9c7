"""A table on a local directory, driven with Debezium-shaped records, and the dict that it must equal."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb_extensions import import_extension
from obstore.store import ObjectStore

from cdc_shared.delta.offsets import ChangeTopic, OffsetRange
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.documents import canonical_document, canonical_row
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.consumer.event_handler import read_events
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.batch_processor import RecordBatch
from delta_writer.writer.delta_writer import CommitResult, DeltaWriter
from delta_writer.writer.tables import WRITERS

TOPIC = ChangeTopic("p.db.things", "topic-id", 1)


def envelope(
    op: str, key: int, document: Mapping[str, Any] | None, ts_ms: int = 1_700_000_000_000
) -> tuple[bytes, bytes]:
    """One record as Debezium writes it, of the document with the integer `_id` `key`."""
    after = None if document is None else json.dumps({"_id": key, **document})
    source = {"ts_ms": 1_700_000_000_000, "db": "db", "collection": "things"}
    return (
        json.dumps({"id": str(key)}).encode(),
        json.dumps({"op": op, "after": after, "source": source}).encode(),
    )


@dataclass
class TableDriver:
    """Feeds batches to a writer as the pipeline would, from one partition."""

    url: str
    store: ObjectStore
    cache_dir: Path
    mode: str = "deletion_vectors"
    next_offset: int = 0
    committed: int = 0
    model: dict[int, dict[str, Any]] = field(default_factory=dict)

    def open(self, clock: Callable[[], float] = time.time) -> DeltaWriter:
        """Open the table as a process that starts would."""
        location = TableLocation(self.url, self.store, {})
        return WRITERS[self.mode](location, TableIdentity("p", "db", "things"), TOPIC, self.cache_dir, clock)

    def batch(self, changes: list[tuple[int, dict[str, Any] | None]], *, must_commit: bool = False) -> RecordBatch:
        """Return the records of changes (key, document or None for a delete), and apply them to the model."""
        batch = RecordBatch(TOPIC.name, 0.0, must_commit=must_commit)
        for key, document in changes:
            record_key, value = envelope("d" if document is None else "u", key, document)
            batch.keys.append(record_key)
            batch.values.append(value)
            batch.partitions.append(0)
            batch.offsets.append(self.next_offset)
            self.next_offset += 1
            if document is None:
                self.model.pop(key, None)
            else:
                self.model[key] = {"_id": key, **document}
        batch.ranges[0] = OffsetRange(self.committed, self.next_offset)
        return batch

    def encode(self, writer: DeltaWriter, batch: RecordBatch) -> EncodedBatch:
        decoded = decode_events(read_events(batch).events, writer.schema)
        assert not decoded.rejected
        return encode_batch(decoded, writer.schema)

    def apply(self, writer: DeltaWriter, changes: list[tuple[int, dict[str, Any] | None]]) -> CommitResult | None:
        """Encode and commit one batch; the range of one that changes nothing is part of the next."""
        batch = self.batch(changes)
        return self.commit(writer, batch)

    def commit(self, writer: DeltaWriter, batch: RecordBatch) -> CommitResult | None:
        """Encode and commit the records."""
        result = writer.commit(self.encode(writer, batch))
        if result is not None:
            self.committed = batch.ranges[0].end
        return result

    def rows(self) -> list[dict[str, Any]]:
        """Read the table with DuckDB."""
        return _duckdb().execute(f"SELECT * FROM delta_scan('{self.url}')").to_arrow_table().to_pylist()

    def assert_equals_model(self, writer: DeltaWriter) -> None:
        """The table holds exactly the model's documents, each once."""
        rows = self.rows() if writer.version >= 0 else []
        found = sorted(repr(canonical_row(row, writer.schema, row["_cdc_rescued"])) for row in rows)
        expected = sorted(repr(canonical_document(json.dumps(document))) for document in self.model.values())
        assert found == expected
        assert len({row["_cdc_key"] for row in rows}) == len(rows)


@cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    import_extension("delta")
    connection = duckdb.connect()
    connection.execute("LOAD delta")
    return connection


@pytest.fixture
def new_table(tmp_path: Path) -> Callable[..., TableDriver]:
    """Makes drivers of new tables, each under a path of its own."""

    def make(mode: str = "deletion_vectors") -> TableDriver:
        path = Path(tempfile.mkdtemp(prefix=f"{mode}-", dir=tmp_path))
        url = str(path / "table")
        return TableDriver(url, open_store(url, ObjectStoreSettings()), path / "cache", mode)

    return make
