"""What 10,000 mixed changes cost on a table of a given size: deletion vectors beside delta-rs MERGE.

Both tables are written by the delta-writer's own code from the same encoded batches: only the commit differs, which
with `copy_on_write` is one delta-rs MERGE. Measured in this process, from the raw Kafka records of a batch to its
commit; the object store's own CPU is not in the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from deltalake import DeltaTable, QueryBuilder

from bench.cost import Cost, measured, median_cost
from bench.events import Event, EventFactory
from cdc_shared.delta.offsets import ChangeTopic, OffsetRange
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.documents import DocumentSchema
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.consumer.event_handler import read_events
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.batch_processor import RecordBatch
from delta_writer.writer.copy_on_write_writer import CopyOnWriteWriter
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import DeltaWriter

CHANGES_A_BATCH = 10_000
FILL_BATCH_ROWS = 100_000
WARM_UP_BATCHES = 1
TOPIC = ChangeTopic("bench.bench.orders", "bench-topic-id", partitions=1)
IDENTITY = TableIdentity("bench", "bench", "orders")
MODES: tuple[type[DeltaWriter], ...] = (DeletionVectorWriter, CopyOnWriteWriter)


@dataclass
class CostOfChanges:
    """Medians over the measured batches. `decode` is the same work for every mode; `commit` is by mode."""

    rows: int
    batches: int
    decode: Cost = field(default_factory=Cost)
    commit: dict[str, Cost] = field(default_factory=dict)

    def cpu_s(self, mode: str) -> float:
        """CPU seconds of a batch, from raw records to commit."""
        return self.decode.cpu_s + self.commit[mode].cpu_s

    @property
    def merge_ratio(self) -> float:
        """How many times dearer delta-rs MERGE is than deletion vectors, decoding included on both sides."""
        return self.cpu_s(CopyOnWriteWriter.mode) / self.cpu_s(DeletionVectorWriter.mode)


class ChangeBench:
    """One story of events, written to one table a mode under `root` (a URL or an absolute path)."""

    def __init__(
        self,
        root: str,
        settings: ObjectStoreSettings,
        cache_dir: Path,
        seed: int,
        modes: Iterable[type[DeltaWriter]] = MODES,
    ) -> None:
        self._factory = EventFactory(seed)
        self._next_offset = 0
        self._writers: dict[str, DeltaWriter] = {}
        for kind in modes:
            url = f"{root}/{kind.mode}"
            location = TableLocation(url, open_store(url, settings), settings.storage_options())
            self._writers[kind.mode] = kind(location, IDENTITY, TOPIC, cache_dir / kind.mode)
        self._known_schema = self._table_schema

    def fill(self, rows: int) -> Iterator[int]:
        """Insert documents until the tables have that many rows; yields the number so far."""
        while self._factory.live_rows < rows:
            batch = self._encode(self._factory.inserts(min(FILL_BATCH_ROWS, rows - self._factory.live_rows)))
            for writer in self._writers.values():
                writer.commit(batch)
            yield self._factory.live_rows

    def measure(self, batches: int) -> CostOfChanges:
        """Apply that many batches of mixed changes after a warm-up, and check that both tables hold the same rows."""
        rows = self._factory.live_rows
        decodes: list[Cost] = []
        commits: dict[str, list[Cost]] = {mode: [] for mode in self._writers}
        for number in range(WARM_UP_BATCHES + batches):
            records = self._records(self._factory.changes(CHANGES_A_BATCH))
            with measured() as decode_cost:
                batch = self._encode_records(records)
            if number >= WARM_UP_BATCHES:
                decodes.append(decode_cost)
            for mode, writer in self._writers.items():
                with measured() as commit_cost:
                    writer.commit(batch)
                if number >= WARM_UP_BATCHES:
                    commits[mode].append(commit_cost)
        self._check_tables()
        medians = {mode: median_cost(costs) for mode, costs in commits.items()}
        return CostOfChanges(rows, batches, median_cost(decodes), medians)

    def close(self) -> None:
        """Close the writers; the tables stay."""
        with ExitStack() as stack:
            for writer in self._writers.values():
                stack.callback(writer.close)

    @property
    def _table_schema(self) -> DocumentSchema:
        """The tables' schema: the same in both, since both were given the same batches."""
        return self._writers[DeletionVectorWriter.mode].schema

    def _records(self, events: Iterable[Event]) -> RecordBatch:
        batch = RecordBatch(TOPIC.name, opened_at=0.0)
        for offset, (key, value) in enumerate(events, start=self._next_offset):
            batch.keys.append(key)
            batch.values.append(value)
            batch.partitions.append(0)
            batch.offsets.append(offset)
        end = batch.offsets[-1] + 1
        batch.ranges[0] = OffsetRange(self._next_offset, end)
        self._next_offset = end
        return batch

    def _encode(self, events: Iterable[Event]) -> EncodedBatch:
        return self._encode_records(self._records(events))

    def _encode_records(self, records: RecordBatch) -> EncodedBatch:
        read = read_events(records)
        decoded = decode_events(read.events, self._known_schema)
        batch = encode_batch(decoded, self._table_schema)
        if problem := decoded.rejected or read.rejected or batch.rescued_values:
            raise AssertionError(f"benchmark events must decode whole: {problem}")
        self._known_schema = batch.schema
        return batch

    def _check_tables(self) -> None:
        """A figure from tables that are wrong is worth nothing."""
        expected = {"rows": self._factory.live_rows}
        for mode, writer in self._writers.items():
            table = DeltaTable(writer.location.url, storage_options=dict(writer.location.storage_options))
            query = "SELECT count(*) AS rows, sum(_cdc_offset) AS offsets, min(_cdc_key) AS least FROM t"
            result = QueryBuilder().register("t", table).execute(query).read_all()
            found = {name: result[name][0].as_py() for name in result.column_names}
            if not expected.items() <= found.items():
                raise AssertionError(f"{mode}: the table holds {found}, expected {expected}")
            expected = found


def measure_sizes(
    root: str,
    settings: ObjectStoreSettings,
    cache_dir: Path,
    sizes: Iterable[int],
    batches: int,
    seed: int,
    modes: tuple[type[DeltaWriter], ...] = MODES,
) -> Iterator[int | CostOfChanges]:
    """Measure at each size in turn; yields the number of rows while filling, and the cost once measured."""
    for rows in sizes:
        bench = ChangeBench(f"{root}/{rows}", settings, cache_dir / str(rows), seed, modes)
        try:
            yield from bench.fill(rows)
            yield bench.measure(batches)
        finally:
            bench.close()
