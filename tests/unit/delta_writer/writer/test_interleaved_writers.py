"""Two writers of one table, step by step in random order, with a store that fails: equal to a dict after every commit.

The store decides at each put of a log entry whether it is carried out and whether its sender hears of it, so the test
knows at every moment what the table must hold, and in which order that came about.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder
from pyroaring import BitMap
from unreliable_store import PARTITIONS, InHand, Row, Truth, UnreliableStore

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic, Fenced, OffsetRange
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.documents import types as t
from cdc_shared.errors import Transient
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.consumer.event_handler import read_events
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.column_rewrite import ColumnRewrite
from delta_writer.maintenance.compactor import rewrite_files
from delta_writer.maintenance.promotion import ColumnPromotion, WaitingPromotion
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.writer import key_index
from delta_writer.writer.batch_processor import RecordBatch
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.deletion_vectors import DeletionVectors
from delta_writer.writer.delta_writer import SchemaMoved
from delta_writer.writer.file_changes import Overtaken, RowDeletion, RowsMoved, TooMuchLeft

pytestmark = pytest.mark.unit

HISTORIES = 12
STEPS = 60
ENOUGH_COMMITS = STEPS / 4
TOPIC = ChangeTopic("p.db.things", "topic-id", PARTITIONS)
KEYS = 24
OLD_S = 3600.0


class Reader:
    """Reads the table without the writers' code: each entry once, every file once."""

    def __init__(self, store: Any) -> None:
        self._log = DeltaLog(store)
        self._store = store
        self._vectors = DeletionVectors(store, lambda: 0.0)
        self._snapshot = Snapshot()
        self._files: dict[str, list[dict[str, Any]]] = {}

    def rows(self) -> dict[int, Row]:
        """Key → offset and document's `n`. Raises AssertionError when a key has two rows (I5)."""
        while (entry := self._log.read_entry(self._snapshot.version + 1)) is not None:
            self._snapshot.apply(self._snapshot.version + 1, entry)
        found: dict[int, Row] = {}
        for path, file in self._snapshot.files.items():
            dead = self._vectors.of(file)
            for position, row in enumerate(self._content(path)):
                if position not in dead:
                    key = int(row["_cdc_key"])
                    assert key not in found, f"key {key} has two rows"
                    found[key] = (row["_cdc_offset"], row["n"])
        return found

    @property
    def version(self) -> int:
        return self._snapshot.version

    def _content(self, path: str) -> list[dict[str, Any]]:
        if path not in self._files:
            body = pa.BufferReader(obstore.get(self._store, path).bytes())
            self._files[path] = pq.read_table(body, columns=["_cdc_key", "_cdc_offset", "n"]).to_pylist()
        return self._files[path]


class WatchedWriter(DeletionVectorWriter):
    """Says when it read the table anew last: then it lost sight of what it had written unheard."""

    reloaded_at = 0

    def __init__(self, now: Callable[[], int], *arguments: Any) -> None:
        self._now = now
        super().__init__(*arguments)

    def reload(self) -> None:
        try:
            super().reload()
        finally:  # it may fail with the log read and the index not
            self.reloaded_at = self._now()


class History:
    """One table, two writers, and a random order of what they do."""

    def __init__(self, directory: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = str(directory / "table")
        self.truth = Truth()
        self._rng = rng
        self._store = open_store(self.url, ObjectStoreSettings())
        self.unreliable = UnreliableStore(self.truth, rng)
        self._reader = Reader(self._store)
        self._cache = directory
        self._time = 1_700_000_000.0
        self._moment = 0
        self._partition_of = [0, 1]
        self._writers = [self._open(0), self._open(1)]
        self._in_hand: list[InHand | None] = [None, None]
        self._numbers = 0
        self.unreliable.wrap(monkeypatch)

    def step(self) -> None:
        """One step of one writer; then the table is held against the truth."""
        number = self._rng.randrange(2)
        commit = self._in_hand[number]
        if commit is None:
            kinds = ("batch", "rewrite", "promotion", "deletion", "look", "rebalance", "sleep", "restart")
            kind = self._rng.choices(kinds, (60, 12, 8, 8, 10, 8, 3, 4))[0]
            getattr(self, f"_{kind}")(number)
        elif self._rng.random() < 0.1:
            self._abandon(number)
        elif commit.kind == "batch" or self._rng.random() < 0.3:  # what is prepared beside the stream lies a while
            self._try(number, commit)
        else:
            self._batch(number, beside=True)
        self.check()

    def check(self) -> None:
        found = self._reader.rows()
        assert self._reader.version == self.truth.version
        assert found == self.truth.rows

    def finish(self) -> None:
        """What is in hand lands or is dropped; other readers see the same."""
        for number in range(2):
            self._abandon(number)
            self._batch(number)
        self.check()
        if self.truth.version >= 0:
            table = QueryBuilder().register("t", DeltaTable(self.url)).execute("SELECT _cdc_key, n FROM t").read_all()
            read = {int(row["_cdc_key"]): row["n"] for row in pa.table(table).to_pylist()}
            assert read == {key: n for key, (_, n) in self.truth.rows.items()}
        for writer in self._writers:
            writer.close()

    # -- what a writer may do -----------------------------------------------------------------------------------------

    def _batch(self, number: int, *, beside: bool = False) -> None:
        """A batch of the writer's partition, or of the other's too, as after a rebalance that it has not heard of."""
        writer = self._writers[number]
        partitions = [self._partition_of[number]] if self._rng.random() < 0.9 else [0, 1]
        batch, changes = self._records(writer, partitions)
        commit = InHand("batch", lambda: None, lambda truth: None, self._now(), (Fenced, SchemaMoved), batch=batch)
        encoded = encode_batch(decode_events(read_events(batch).events, writer.schema), writer.schema)
        commit.run = lambda: writer.commit(encoded)

        def effect(truth: Truth) -> None:
            for partition, part in batch.ranges.items():
                assert truth.offsets[partition] == part.start, "the fence let a gap or an overlap through (I2)"
                truth.offsets[partition] = part.end
            for key, row in changes:
                if row is None:
                    truth.rows.pop(key, None)
                else:
                    truth.rows[key] = row

        commit.effect = effect
        if beside:  # something prepared stays in hand: this one is tried once
            self._run(number, commit)
        else:
            self._in_hand[number] = commit
            self._try(number, commit)

    def _records(self, writer: DeletionVectorWriter, partitions: list[int]) -> tuple[RecordBatch, list[Any]]:
        batch = RecordBatch(TOPIC.name, 0.0, must_commit=self._rng.random() < 0.2)
        changes: list[tuple[int, Row | None]] = []
        for partition in partitions:
            offset = start = writer.next_offset(partition, 0, 10**9)
            for _ in range(self._rng.randint(1, 8)):
                key = self._rng.randrange(KEYS) * PARTITIONS + partition
                self._numbers += 1
                document: dict[str, Any] = {"_id": key, "n": str(self._numbers)}
                if self._rng.random() < 0.1:
                    document[f"late_{self._rng.randrange(6)}"] = self._rng.choice([1, "text"])
                deletes = self._rng.random() < 0.25
                changes.append((key, None if deletes else (offset, document["n"])))
                value = {
                    "op": "d" if deletes else "u",
                    "after": None if deletes else json.dumps(document),
                    "source": {"ts_ms": 1_700_000_000_000, "db": "db", "collection": "things"},
                }
                batch.keys.append(json.dumps({"id": str(key)}).encode())
                batch.values.append(json.dumps(value).encode())
                batch.partitions.append(partition)
                batch.offsets.append(offset)
                offset += self._rng.choice([1, 1, 1, 3])
            batch.ranges[partition] = OffsetRange(start, offset)
        return batch, changes

    def _rewrite(self, number: int) -> None:
        """Rewrite random files as they are now, to be put in their place later."""
        writer = self._writers[number]
        files = list(writer.snapshot.files.values())
        if len(files) < 2 or writer.snapshot.metadata is None:
            return
        chosen = self._rng.sample(files, self._rng.randint(2, len(files)))
        rewrite = rewrite_files(
            self._store,
            writer.version,
            writer.snapshot.metadata.schema_string,
            chosen,
            Budget(1.0, 1e12, threading.Event()),
            writer.cache_dir,
        )

        def effect(truth: Truth) -> None:
            truth.rewrites.append(truth.version + 1)

        self._in_hand[number] = InHand(
            "rewrite",
            lambda: writer.replace_files(rewrite),
            effect,
            self._now(),
            (RowsMoved,),
            read_version=rewrite.read_version,
        )

    def _promotion(self, number: int) -> None:
        """Rewrite some files with a wider column; the others, and what comes until it is tried, the commit rewrites."""
        writer, metadata = self._writers[number], self._writers[number].snapshot.metadata
        fields = [each for each in writer.schema.fields if each.name.startswith("late_") and each.type != t.JSON]
        if not fields or metadata is None:
            return
        field_ = self._rng.choice(fields)
        promotion = ColumnPromotion([WaitingPromotion(f"/{field_.name}", field_.type.text, "json")])
        columns = ColumnRewrite(writer, promotion, 1, 1e12)
        files = list(writer.snapshot.files.values())
        for file in self._rng.sample(files, self._rng.randint(0, len(files))):
            columns._work(writer.version, metadata, [file], Budget(1.0, 1e12, threading.Event()))
            columns._take_up()

        def effect(truth: Truth) -> None:
            truth.rewrites.append(truth.version + 1)

        self._in_hand[number] = InHand(
            "promotion",
            lambda: writer.rewrite_table(columns._rewrite),
            effect,
            self._now(),
            (Overtaken, TooMuchLeft),
            read_version=writer.version,
        )

    def _deletion(self, number: int) -> None:
        """Find rows of random keys as they are now, to be deleted later, as a sweep does."""
        writer = self._writers[number]
        doomed = {self._rng.randrange(KEYS * PARTITIONS) for _ in range(6)}
        rows: dict[str, BitMap] = {}
        versions: dict[int, int] = {}
        for path, file in writer.snapshot.files.items():
            dead = writer.vectors.of(file)
            for position, row in enumerate(self._reader._content(path)):
                if int(row["_cdc_key"]) in doomed and position not in dead:
                    rows.setdefault(path, BitMap()).add(position)
                    versions[int(row["_cdc_key"])] = row["_cdc_offset"]
        if not rows:
            return
        deletion = RowDeletion(writer.version, rows, {}, "CDC SWEEP", str(uuid.uuid4()))

        def effect(truth: Truth) -> None:
            for key, offset in versions.items():
                if key in truth.rows and truth.rows[key][0] == offset:
                    del truth.rows[key]

        self._in_hand[number] = InHand(
            "deletion",
            lambda: writer.delete_rows(deletion),
            effect,
            self._now(),
            (RowsMoved,),
            read_version=writer.version,
        )

    def _look(self, number: int) -> None:
        """Follow what the other has written, or fail half-way."""
        try:
            with self.unreliable.failing_for(None):
                self._writers[number].refresh()
        except Transient:
            self.unreliable.seen["look failed"] += 1

    def _rebalance(self, number: int) -> None:
        """Each writer gets the other's partition; both look at the table."""
        self._partition_of.reverse()
        for each in range(2):
            self._look(each)

    def _sleep(self, number: int) -> None:
        """What the writers know comes to be too old to be written upon."""
        self._time += OLD_S + 1

    def _restart(self, number: int) -> None:
        """End, cleanly or not, and open the table anew."""
        if self._rng.random() < 0.5:
            self._writers[number].close()
        else:
            index = self._writers[number]._index
            if index is not None:
                index._directory.release()  # the process dies
        self._writers[number] = self._open(number)

    # -- trying, and what may come of it ------------------------------------------------------------------------------

    def _try(self, number: int, commit: InHand) -> None:
        if self._run(number, commit):
            self._in_hand[number] = None

    def _run(self, number: int, commit: InHand) -> bool:
        """Call the writer; True when the commit is over, False when it may be tried again."""
        refused: Exception | None
        result = None
        try:
            with self.unreliable.failing_for(commit):
                result = commit.run()
        except Transient:
            self.unreliable.seen["transient"] += 1
            return False
        except commit.may_raise as error:
            refused = error
        else:
            refused = None
        if refused is not None:
            self._check_refusal(number, commit, refused)
            self.unreliable.seen[type(refused).__name__] += 1
            return True
        if result is None and not commit.landed:  # it said that there is nothing to change
            self._check_idle(commit)
        else:
            assert commit.landed, f"the writer says that a {commit.kind} is in the log"
        return True

    def _check_idle(self, commit: InHand) -> None:
        if commit.batch is not None and any(
            self.truth.offsets[p] != part.start for p, part in commit.batch.ranges.items()
        ):
            return  # it did not look: the fence will stop the batch that this one becomes part of
        rows = dict(self.truth.rows)
        commit.effect(Truth(rows, list(self.truth.offsets)))
        assert rows == self.truth.rows, f"a {commit.kind} that changes rows was not written"

    def _check_refusal(self, number: int, commit: InHand, refused: Exception) -> None:
        # A writer that read the table anew in between has lost sight of its own entry: it may refuse what is there.
        forgot = self._writers[number].reloaded_at > commit.made_at and not isinstance(refused, SchemaMoved)
        assert forgot or not commit.landed, f"a {commit.kind} is in the log, and the writer says {refused!r}"
        if isinstance(refused, Fenced):
            assert commit.batch is not None
            stands = self.truth.offsets
            moved = {p for p, part in commit.batch.ranges.items() if stands[p] != part.start}
            assert moved, "fenced, although the table stands where the batch begins"
            self._writers[number].reload()
        if isinstance(refused, RowsMoved):
            since = [version for version in self.truth.rewrites if version > commit.read_version]
            assert since or forgot, "no rewrite came since"

    def _abandon(self, number: int) -> None:
        """Drop what is in hand and look at the table, as after a rebalance."""
        self._in_hand[number] = None
        self._writers[number].reload()

    def _now(self) -> int:
        self._moment += 1
        return self._moment

    def _open(self, number: int) -> WatchedWriter:
        location = TableLocation(self.url, self._store, {})
        cache = self._cache / f"cache-{number}"
        identity = TableIdentity("p", "db", "things")
        return WatchedWriter(self._now, location, identity, TOPIC, cache, lambda: self._time)


@pytest.fixture
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "INLINE_MERGE_ENTRIES", 8)
    monkeypatch.setattr(key_index, "_SMALLEST_TIER_ENTRIES", 2)


@pytest.mark.usefixtures("small_index")
@pytest.mark.parametrize("number", range(HISTORIES))
def test_any_interleaving_equals_a_dict(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Attacks I1, I2, I3, I5, I6, I7, I8, I14."""
    history = History(tmp_path, rng, monkeypatch)
    for step in range(2 * STEPS):
        if step >= STEPS and history.truth.version > ENOUGH_COMMITS:  # where chance refuses most of them, it goes on
            break
        history.step()
    history.finish()
    print(dict(history.unreliable.seen))
    assert history.truth.version > ENOUGH_COMMITS
