"""Spark with Delta Lake's own reader agrees with the others about our tables, and may look after them too."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from change_load import ChangeLoad
from delta_reading import READERS, canonical_rows, canonical_rows_of, deletion_vectors, open_table
from maintained_table import Change, TableWriter, random_document
from obstore.store import ObjectStore
from spark_reader import SparkNotToBeHad, query_with_spark, read_with_spark, spark_session
from topic_pipeline import TopicPipeline

from cdc_shared.delta.log import DeltaLog, entry_path
from cdc_shared.delta.offsets import app_id, swept_id
from cdc_shared.delta.oldest_version import announce_oldest_version
from cdc_shared.documents import key_text
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.checkpointer import write_checkpoint
from delta_writer.maintenance.compactor import rewrite_files
from delta_writer.maintenance.retention import Retention, retained_log
from delta_writer.maintenance.vacuum import clean_up_log, vacuum
from delta_writer.snapshots.doomed_rows import SweepRule
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.file_changes import RowDeletion

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.timeout(1200)]

STORES = ObjectStoreSettings()
KEYS = 400
SPARKS_CHECKPOINT_INTERVAL = 10
"""Spark writes a checkpoint with a commit of its own whose version is a multiple of this."""


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        with spark_session(tmp_path_factory.mktemp("spark")) as session:
            yield session
    except SparkNotToBeHad as reason:
        pytest.skip(str(reason))


def _copy(pipeline: TopicPipeline, target: Path) -> Path:
    """The table's files as they are, on local disk: what Spark would need to read S3 is not ours to test."""
    store = open_store(pipeline.items.url, pipeline.stack.object_store)
    for found in obstore.list(store):
        for each in found:
            file = target / each["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(obstore.get(store, each["path"]).bytes()))
    return target


def test_spark_reads_the_same_rows(
    spark: Any, new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, tmp_path: Path
) -> None:
    pipeline = new_topic_pipeline(max_seconds=0.1)
    load = ChangeLoad(pipeline.items, rng)
    for _ in range(6):
        load.run(200)
        pipeline.items.await_applied()
    pipeline.items.assert_equal()
    store = pipeline.stack.object_store
    assert deletion_vectors(pipeline.items.url, store)
    table = open_table(pipeline.items.url, store)
    assert table is not None
    table.create_checkpoint()
    load.run(200)
    pipeline.items.await_equal()
    pipeline.writer.stop()

    rows = read_with_spark(spark, _copy(pipeline, tmp_path / "table"), tmp_path)
    assert canonical_rows_of(rows, table.schema()) == pipeline.items.model


class EventfulTable:
    """A table on local disk through everything that happens to tables, with the rows that it must hold."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.path = directory / "table"
        self.table = TableWriter(str(self.path), STORES, directory / "cache")
        self._rng = rng
        self._offsets: dict[int, int] = {}
        self._next_offset = 0

    @property
    def writer(self) -> DeletionVectorWriter:
        return self.table.writer

    @property
    def store(self) -> ObjectStore:
        return self.writer.location.store

    def change(self, count: int, **fields: Any) -> None:
        """A batch of inserts, updates and, one in five, deletes; `fields` are added to the documents."""
        changes: list[Change] = []
        for key in self._rng.choices(range(KEYS), k=count):
            deletes = self._rng.random() < 0.2
            changes.append((key, None if deletes else random_document(self._rng) | fields))
            self._offsets[key] = self._next_offset
            self._next_offset += 1
        self.table.apply(changes, keep_state=True)

    def rewrite(self, between: Callable[[], None]) -> None:
        """Rewrite all files into one; `between` happens after they are read and before that is committed."""
        snapshot = self.writer.snapshot
        assert snapshot.metadata is not None
        files = list(snapshot.files.values())
        schema = snapshot.metadata.schema_string
        rewrite = rewrite_files(self.store, snapshot.version, schema, files, _budget(), self.writer.cache_dir)
        between()
        result = self.writer.replace_files(rewrite)
        assert result is not None
        assert result.files_swapped > 1

    def sweep(self, before: int) -> None:
        """Delete the rows whose last event lies before an offset."""
        rule = SweepRule(0, {0: before})
        snapshot = self.writer.snapshot
        rows = {path: rule.rows_of(file, self.store) for path, file in snapshot.files.items() if rule.admits(file)}
        txns = {swept_id(self.writer.topic, 0): before}
        result = self.writer.delete_rows(RowDeletion(snapshot.version, rows, txns, "CDC SWEEP", str(uuid.uuid4())))
        gone = {key_text(key) for key, offset in self._offsets.items() if offset < before} & self.table.model.keys()
        assert result is not None
        assert result.rows_removed == len(gone) > 0
        for key in gone:
            del self.table.model[key]

    def checkpoint(self) -> None:
        write_checkpoint(self.writer.location, self.writer.version, _budget())

    def forget_before(self, version: int) -> None:
        """Vacuum and log clean-up, as of when `version` is the oldest that is retained."""
        retention = Retention(versions_s=3600.0, upload_grace_s=0.0)
        retained = retained_log(self.store, retention, _committed_at(self.path, version) + retention.versions_s)
        assert retained is not None
        assert retained.oldest == version
        announce_oldest_version(self.store, version)
        deleted = vacuum(self.store, retained, retention, _budget()).files
        assert deleted["data"] > 0
        assert deleted["deletion_vector"] > 0
        assert clean_up_log(self.store, retained, _budget()).files["log"] > 0

    def assert_readers_agree(self, spark: Any, scratch: Path) -> None:
        assert deletion_vectors(str(self.path), STORES), "nothing is left to be read wrongly"
        for name, read in READERS.items():
            assert canonical_rows(str(self.path), STORES, read) == self.table.model, name
        assert self.rows_in_spark(spark, scratch) == self.table.model, "spark"

    def rows_in_spark(self, spark: Any, scratch: Path, version: int | None = None) -> dict[str, bytes]:
        table = open_table(str(self.path), STORES)
        assert table is not None
        return canonical_rows_of(read_with_spark(spark, self.path, scratch, version), table.schema())


@pytest.fixture
def eventful(tmp_path: Path, rng: random.Random) -> Iterator[EventfulTable]:
    """Inserts, updates, deletes, a wider schema, compaction with changes in between, a sweep, vacuum, log clean-up."""
    table = EventfulTable(tmp_path, rng)
    for _ in range(5):
        table.change(150)
    table.change(100, added={"deep": [1, 2]}, nul=None)
    table.rewrite(between=lambda: table.change(80, added={"deep": [3], "wider": True}))
    table.checkpoint()
    table.change(60)
    table.sweep(before=550)
    table.change(60)
    table.forget_before(table.writer.version - 3)
    yield table
    table.table.close()


def test_every_reader_agrees_after_everything(spark: Any, eventful: EventfulTable, tmp_path: Path) -> None:
    """Attacks I8, I9 and I10: rewritten, swept and vacuumed, the table reads the same to all, now and as it was."""
    eventful.assert_readers_agree(spark, tmp_path)

    history = query_with_spark(spark, f"DESCRIBE HISTORY delta.`{eventful.path}`", tmp_path)
    told = dict(zip(history["version"].to_pylist(), history["operation"].to_pylist(), strict=True))
    newest = eventful.writer.version
    kept = ["CDC REWRITE", "CDC UPSERT", "CDC SWEEP", "CDC UPSERT"]
    assert told == dict(enumerate(kept, newest + 1 - len(kept)))

    then = newest - 2  # a batch between rewrite and sweep; every batch's state is kept by the offset that it ends at
    state = DeltaLog(eventful.store).load_version(then)
    ended = state.txns[app_id(eventful.writer.topic, 0)]
    assert eventful.rows_in_spark(spark, tmp_path, then) == eventful.table.states[ended]


@pytest.mark.parametrize("next_process", [False, True], ids=["this process", "the next process"])
def test_the_writer_goes_on_after_spark_optimized(
    spark: Any, eventful: EventfulTable, tmp_path: Path, *, next_process: bool
) -> None:
    """Attacks I7 and I8 from outside: rows that Spark has moved are found again, whoever goes on.

    The next process reads a checkpoint of Spark's.
    """
    eventful.change(60)
    while next_process and (eventful.writer.version + 1) % SPARKS_CHECKPOINT_INTERVAL:
        eventful.change(20)
    version = eventful.writer.version + 1
    spark.sql(f"OPTIMIZE delta.`{eventful.path}`")
    assert DeltaLog(eventful.store).load().version == version, "Spark found nothing to optimize"
    if next_process:
        assert (eventful.path / f"_delta_log/{version:020}.checkpoint.parquet").exists(), "Spark wrote none"
        eventful.table.reopen()
    assert eventful.rows_in_spark(spark, tmp_path) == eventful.table.model
    eventful.change(120)
    eventful.assert_readers_agree(spark, tmp_path)


def _budget() -> Budget:
    return Budget(1.0, 1e9, threading.Event())


def _committed_at(table: Path, version: int) -> float:
    return (table / entry_path(version)).stat().st_mtime
