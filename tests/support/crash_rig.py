"""One table, the recorded topic that fills it, and the writer processes that are killed over it."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterable
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import crash_writer
import psutil
import pyarrow as pa
from crash_points import CrashPoint
from crash_writer import WriterPlan
from delta_reading import open_table
from deltalake import QueryBuilder
from hot_key_changes import HotKeyChanges, Sent
from pinned_table import OffsetChain, PinnedTable, read_pinned
from recorded_topic import TOPIC_ID, RecordedRecord, RecordedTopic
from trial_pipeline import difference
from waiting import wait_until

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.kafka.topics import change_topic
from cdc_shared.models.common import HISTORY_SUFFIX, BatchSpec, PipelineSpec, SinkSpec, SourceSpec
from cdc_shared.models.data_quality import EvolutionSpec, PromotionSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import delete_everything, open_store, table_url

END_TIMEOUT_S = 60.0
DATABASE, COLLECTION = "db", "items"
PROMOTED_AFTER = 30
"""Conflicts of the field `mixed` (`hot_key_changes`), which come with about every other change."""
GAP_SHARE, INVALID_SHARE, REJECTED_READ_SHARE = 0.04, 0.05, 0.05
LOG_TAIL_LINES = 12
AGED_S = 60.0
"""Beyond what writers retain here (`crash_writer.RETENTION`)."""


@cache
def _fork_server() -> ForkServerContext:
    """Where writers are forked from: a process that has imported all they need, and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", crash_writer.__name__])
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # Python 3.11 preloads by its own path alone
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if kept is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = kept
    return context


class RigWriter:
    """A writer process."""

    def __init__(self, plan: WriterPlan) -> None:
        self.plan = plan
        self._process: BaseProcess = _fork_server().Process(target=crash_writer.run, args=(plan,), name=plan.member)
        self._process.start()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """SIGKILL, unless it has ended by itself."""
        self._process.kill()
        self.join(-signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send the signal to the living process."""
        self._check(self._process.exitcode, None)
        os.kill(self._process.pid or 0, number)

    def await_asleep(self) -> None:
        """Wait until it has been stopped by SIGSTOP."""

        def is_asleep() -> bool:
            self._check(self._process.exitcode, None)
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED

        wait_until(is_asleep, END_TIMEOUT_S, f"{self.plan.member} is asleep", poll_s=0.01)

    def events_since(self, position: int) -> list[str]:
        """The names of what it has logged since its log had this many lines."""
        return [line.get("event", "") for line in self._logged_since(position)]

    def committed_since(self, position: int) -> list[int]:
        """The versions of the batches that it has logged as committed since its log had this many lines."""
        return [line["version"] for line in self._logged_since(position) if line.get("event") == "batch committed"]

    def _logged_since(self, position: int) -> list[dict[str, Any]]:
        lines = self.plan.log_file.read_text(errors="replace").splitlines()[position:]
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def log_lines(self) -> int:
        """How many lines its log has."""
        return len(self.plan.log_file.read_text(errors="replace").splitlines())

    def stop(self) -> None:
        """SIGTERM: it finishes what it has in hand."""
        self._process.terminate()
        self.join(0)

    def join(self, expected: int) -> None:
        """Wait until it has ended with this exit code."""
        self._process.join(END_TIMEOUT_S)
        self._check(self._process.exitcode, expected)

    def _check(self, code: int | None, expected: int | None) -> None:
        if code != expected:
            if code is None:
                self._process.kill()
            log = self.plan.log_file
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            tail = "\n".join(lines[-LOG_TAIL_LINES:])
            raise AssertionError(f"{self.plan.member} ended with {code}, expected was {expected}\n{tail}")


class CrashRig:
    """A table under `root`, and everything else of it under `directory`."""

    def __init__(
        self,
        directory: Path,
        rng: random.Random,
        *,
        root: str | None = None,
        stores: ObjectStoreSettings | None = None,
        partitions: int = 2,
        changes: int = 350,
        keys: int = 150,
        max_rows: int = 20,
        mode: str = "deletion_vectors",
        history: bool = False,
        promotes: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.stores = stores or ObjectStoreSettings()
        name = f"rig-{directory.name}"
        self.spec = PipelineSpec(
            name=name,
            source=SourceSpec(connection="env:NONE", database=DATABASE),
            sink=SinkSpec.model_validate({"root": root or str(directory / "lake"), "mode": mode, "history": history}),
            batch=BatchSpec(max_rows=max_rows, max_seconds=0.1),
            topic_partitions=partitions,
            evolution=EvolutionSpec(promotion=PromotionSpec(enabled=promotes, after_conflicts=PROMOTED_AFTER)),
        )
        self.url = table_url(str(self.spec.sink.root), name, DATABASE, COLLECTION)
        self.topic = RecordedTopic(change_topic(name, DATABASE, COLLECTION), directory)
        self._rng = rng
        self._letters_file = directory / "letters"
        self._chain = OffsetChain(self.url, self.stores)
        self._invalid: set[tuple[int, int]] = set()
        self._records: list[list[RecordedRecord]] = [[] for _ in range(partitions)]
        self.changes = HotKeyChanges(
            self._record,
            rng,
            pipeline=name,
            database=DATABASE,
            collection=COLLECTION,
            partitions=partitions,
            keys=keys,
        )
        self._make(changes)

    def close(self) -> None:
        """Delete the table."""
        delete_everything(f"{self.spec.sink.root}/{self.spec.name}", self.stores)

    # -- writers ------------------------------------------------------------------------------------------------------

    def start(
        self,
        member: str = "a",
        crash_point: CrashPoint | None = None,
        *,
        stops_when_drained: bool = False,
        waits: bool = False,
        reads_at_most: int | None = None,
        stores: ObjectStoreSettings | None = None,
    ) -> RigWriter:
        """Start a writer, which ends of itself when it comes to the crash point, or has read all and was told to.

        The same member goes on with the same cache. `stores`: how it reaches the store, say by a proxy. A writer
        that never comes to its crash point reads all, and ends; unless it `waits`: the point comes when all is read.
        After `reads_at_most` records it ends as if there were no more.
        """
        return RigWriter(
            WriterPlan(
                member=member,
                topic=self.topic,
                spec=self.spec,
                stores=stores or self.stores,
                cache_dir=self.cache_dir(member),
                log_file=self._directory / f"{member}.log",
                letters_file=self._letters_file,
                seed=f"{self._rng.random()}",
                crash_point=crash_point,
                stops_when_drained=stops_when_drained
                or reads_at_most is not None
                or (not waits and crash_point is not None and crash_point.signal == signal.SIGKILL),
                reads_at_most=reads_at_most,
            )
        )

    def cache_dir(self, member: str) -> Path:
        return self._directory / f"cache-{member}"

    def assign(self, **owners: Iterable[int]) -> None:
        """Hand the partitions out: member → partitions."""
        self.topic.assign({member: list(partitions) for member, partitions in owners.items()})

    def assign_all_to(self, member: str) -> None:
        """One member reads everything."""
        self.assign(**{member: range(len(self._records))})

    @property
    def version(self) -> int:
        """The newest version of the table."""
        return DeltaLog(open_store(self.url, self.stores)).load().version

    def await_commits(self, number: int) -> None:
        """Wait until the table has that many versions more than now."""
        log = DeltaLog(open_store(self.url, self.stores))
        wanted = self.version + number
        wait_until(lambda: log.read_entry(wanted), END_TIMEOUT_S, f"version {wanted}", poll_s=0.005)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> PinnedTable:
        """Hold the table, where it stands, against the model; check its offsets' chain, and the dead letters."""
        self._chain.follow()
        topic = ChangeTopic(self.topic.name, TOPIC_ID, len(self._records))
        table = read_pinned(self.url, self.stores, topic)
        told = difference(self.changes.expected_at(table.offsets), table.rows)
        assert not told, f"version {table.version} at {dict(table.offsets)} is not equal to the model:\n{told}"
        if self.spec.sink.history:
            self._check_history(topic, table)
        passed = {(p, offset) for p, offset in self._invalid if offset < table.offsets.get(p, 0)}
        lost = passed - self._letters()
        assert not lost, f"the table stands at {dict(table.offsets)}, and nobody kept the dead letters {sorted(lost)}"
        return table

    def _check_history(self, topic: ChangeTopic, current: PinnedTable) -> None:
        """Hold the history against the events up to where it stands, which is not behind where the table stood."""
        history = open_table(self.url + HISTORY_SUFFIX, self.stores)
        if history is None:
            assert current.version < 0, "there is a table, and no history"
            return
        stands = {p: history.transaction_version(app_id(topic, p)) or 0 for p in range(topic.partitions)}
        behind = {p: at for p, at in stands.items() if at < current.offsets.get(p, 0)}
        assert not behind, f"the history stands at {stands}, the table stood at {dict(current.offsets)}"
        columns = "_cdc_partition, _cdc_offset"
        query = f"SELECT {columns} FROM t ORDER BY {columns}"
        found = pa.table(QueryBuilder().register("t", history).execute(query).read_all()).to_pylist()
        events = [(row["_cdc_partition"], row["_cdc_offset"]) for row in found]
        assert events == self.changes.events_at(stands), f"the history at {stands} is not each event once"

    def age(self) -> None:
        """Make everything of the table `AGED_S` older, so that vacuum finds work. No writer may run."""
        for path in Path(str(self.spec.sink.root)).rglob("*"):
            if path.is_file():
                modified_at = path.stat().st_mtime - AGED_S
                os.utime(path, (modified_at, modified_at))

    def finish(self) -> int:
        """Let one writer read to the end; check everything. Returns the number of commits."""
        self.assign_all_to("a")
        self.start("a", stops_when_drained=True).join(0)
        table = self.check()
        ends = {p: self.changes.end(p) for p in range(len(self._records))}
        # A gap at the very end is not seen before a record follows it.
        lasts = {p: records[-1].at_offset + 1 for p, records in enumerate(self._records)}
        assert all(lasts[p] <= table.offsets[p] <= ends[p] for p in ends), f"{table.offsets} is not {ends}"
        return table.version + 1

    # -- the recording ------------------------------------------------------------------------------------------------

    def _make(self, changes: int) -> None:
        partitions = range(len(self._records))
        for _ in range(changes):
            if self._rng.random() < GAP_SHARE:
                self.changes.add_gap(self._rng.choice(partitions))
            if self._rng.random() < INVALID_SHARE:
                partition = self._rng.choice(partitions)
                self._invalid.add((partition, self.changes.end(partition)))
                self.changes.add_invalid(partition)
            if self._rng.random() < REJECTED_READ_SHARE:
                self.changes.add_rejected_read()
            self.changes.make(1)
        self.topic.record([self.changes.end(p) for p in partitions], self._records)

    def _record(self, partition: int, sent: Sent) -> None:
        offset = self.changes.end(partition) - 1
        self._records[partition].append(RecordedRecord(partition, offset, sent.key, sent.value))

    def _letters(self) -> set[tuple[int, int]]:
        if not self._letters_file.exists():
            return set()
        # A killed writer may leave half a line; the next one's first letter then follows on the same line.
        lines = (line.split() for line in self._letters_file.read_text().splitlines())
        return {(int(line[0]), int(line[1])) for line in lines if len(line) == 2}


def damage_cache(directory: Path, how: str, rng: random.Random, other: Path | None = None) -> None:
    """Harm what a stopped writer keeps on local disk."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    if how in ("deleted", "old", "another table's"):
        shutil.rmtree(directory, ignore_errors=True)
    if how in ("old", "another table's") and other is not None:
        shutil.copytree(other, directory)
    for path in files if how in ("truncated", "flipped") else []:
        content = bytearray(path.read_bytes())
        if content and how == "truncated":
            del content[rng.randrange(len(content)) :]
        elif content:
            for _ in range(rng.randint(1, 8)):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
