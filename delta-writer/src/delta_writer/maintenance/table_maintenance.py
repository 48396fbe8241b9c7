"""The maintenance of one open table: what is due, and what comes of it.

The table's writer is touched in the pipeline's thread alone, in `turn`. A job for the worker is given what it needs as
of a version (files with their vectors, the schema), and what it leaves to commit is committed in a later turn.
"""

import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from deltalake.exceptions import CommitFailedError, DeltaError
from obstore.exceptions import BaseError
from pyarrow import ArrowException

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.errors import CdcError, Fatal, may_be_shown, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask, WriterMetrics
from delta_writer.maintenance.budget import Budget, Stopped
from delta_writer.maintenance.checkpointer import write_checkpoint
from delta_writer.maintenance.column_changes import ColumnChanges
from delta_writer.maintenance.column_rewrite import ColumnChange
from delta_writer.maintenance.compactor import rewrite_files
from delta_writer.maintenance.copy_on_write_compactor import compact_copy_on_write
from delta_writer.maintenance.optimize_request import REQUEST, OptimizeRequest, OptimizeUnderWay, waiting_request
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.retention import deletable_log
from delta_writer.maintenance.rewrite_plan import FANOUT, FileShape, choose_files
from delta_writer.maintenance.vacuum import Deleted, clean_up_log, vacuum
from delta_writer.maintenance.worker import MaintenanceWorker, Urgency
from delta_writer.writer.batch_upload import is_too_old
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import DeltaWriter
from delta_writer.writer.file_changes import FileRewrite, RowsMoved
from delta_writer.writer.history_writer import HistoryWriter

LOOK_AT_OTHERS_S: Final = 60.0
"""How often the table is looked at for commits of others while this writer commits nothing."""
AFTER_FAILURE_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 5.0
REWRITABLE: Final = (DeletionVectorWriter, HistoryWriter)
"""Writers that commit a rewrite of ours; a copy-on-write table is compacted by delta-rs."""
COLUMN_TASKS: Final = frozenset({MaintenanceTask.PROMOTION, MaintenanceTask.REMASK})
URGENCY: Final = {
    MaintenanceTask.CHECKPOINT: Urgency.CHECKPOINT,
    MaintenanceTask.COMPACTION: Urgency.REWRITE,
    MaintenanceTask.PROMOTION: Urgency.REWRITE,
    MaintenanceTask.REMASK: Urgency.REWRITE,
    MaintenanceTask.VACUUM: Urgency.VACUUM,
}

log = get_logger(__name__)


class TableMaintenance:
    """`turn`, `close` in the pipeline's thread. `labels` are the metrics' pipeline, database, collection."""

    def __init__(
        self,
        writer: DeltaWriter,
        labels: tuple[str, str, str],
        policy: MaintenancePolicy,
        worker: MaintenanceWorker,
        metrics: WriterMetrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        column_changes: Callable[[Metadata], ColumnChange | None] = lambda _: None,
        report: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """`column_changes` and `report`: see `ColumnChanges`."""
        self.writer = writer
        self._labels = labels
        self._policy = policy
        self._worker = worker
        self._metrics = metrics
        self._clock = clock
        self._wall_clock = wall_clock
        self._stop = threading.Event()
        self._running = threading.Lock()
        self._queued: set[MaintenanceTask] = set()
        self._rewrite: FileRewrite | None = None
        self._compact_from = 0  # version and time from which looking for files to rewrite is worth it again
        self._compact_after = 0.0
        self._checkpoint_from = self._next_checkpoint()
        self._vacuum_after = clock() + policy.first_vacuum_s
        self._seen = (-1, 0.0)
        self._overtaken = False  # a job of ours has committed past the writer
        self._request: OptimizeUnderWay | None = None
        self._refused: str | None = None
        self._columns = (
            ColumnChanges(writer, policy, column_changes, report, self._count, clock, wall_clock)
            if isinstance(writer, REWRITABLE)
            else None
        )

    def turn(self) -> None:
        """Commit what the worker has finished, and give it what is due. Blocks for one commit at most.

        Raises:
            Transient: the store is away; nothing is lost by calling again later.
            Fatal: the table is not to be written any more.
        """
        self._land()
        self._follow_others()
        version = self.writer.version
        if version < 0:
            return
        self._attend_to_request()
        if version >= self._checkpoint_from and MaintenanceTask.CHECKPOINT not in self._queued:
            self._checkpoint_from = self._next_checkpoint()
            self._start(MaintenanceTask.CHECKPOINT, partial(self._checkpoint, version))
        # Not while files are being compacted: both would rewrite the same ones. Before the look for more to compact, so
        # that the two take turns.
        busy = self._rewrite is not None or self._queued & {MaintenanceTask.COMPACTION, *COLUMN_TASKS}
        if self._columns is not None and not busy:
            self._change_columns(self._columns)
        if self._rewrite is None and version >= self._compact_from and self._clock() >= self._compact_after:
            self._look_for_files_to_rewrite(version)
        if self._clock() >= self._vacuum_after:
            self._agree_on_retention()
            self._vacuum_after = self._clock() + self._policy.vacuum_every_s
            self._start(MaintenanceTask.VACUUM, self._vacuum)

    def close(self) -> None:
        """Drop what is queued and wait for the job under way, which ends at its next step; no step takes seconds.

        Except delta-rs's: a copy-on-write compaction may go on beyond `CLOSE_TIMEOUT_S`, and commit or not.
        """
        self._stop.set()
        if self._running.acquire(timeout=CLOSE_TIMEOUT_S):
            self._running.release()
        else:
            log.warning("a step of maintenance is not over yet; nothing waits for it", table=self._url)
        if self._columns is not None:
            self._columns.close()

    # -- in the pipeline's thread -------------------------------------------------------------------------------------

    def _next_checkpoint(self) -> int:
        every = self._policy.commits_a_checkpoint
        return (max(0, self.writer.version) // every + 1) * every

    def _follow_others(self) -> None:
        """Other writers' commits count for what is due too, and so does what people ask for in the table."""
        if self._overtaken:  # a MERGE on the view of before would only fail
            self._overtaken = False
            self.writer.refresh()
        version, at = self._seen
        if self.writer.version != version:
            self._seen = (self.writer.version, self._clock())
        elif self._clock() - at >= LOOK_AT_OTHERS_S:
            self._seen = (version, self._clock())
            self.writer.refresh()

    def _agree_on_retention(self) -> None:
        """Tell other programs by the table's own property how long the log is kept."""
        self.writer.set_properties({"delta.logRetentionDuration": self._policy.log_retention})

    def _attend_to_request(self) -> None:
        """Take up what somebody asks for in the table's properties, and tell there that it is done."""
        metadata, under_way = self.writer.snapshot.metadata, self._request
        if metadata is None:
            return
        if under_way is None:
            if (request := self._request_in(metadata)) is not None:
                log.info("asked to optimize", table=self._url, request=request.id, vacuum=request.vacuum)
                self._request = OptimizeUnderWay(request, rewrites=self._columns is not None)
                self._compact_after = 0.0
                if request.vacuum:
                    self._vacuum_after = self._clock()
        elif under_way.is_done:
            self.writer.set_properties(under_way.report(int(self._wall_clock() * 1000)))
            log.info("optimized as asked", table=self._url, request=under_way.request.id)
            self._request = None
        if self._request is not None and self._request.is_gathering:
            self._compact_from = min(self._compact_from, self.writer.version)

    def _request_in(self, metadata: Metadata) -> OptimizeRequest | None:
        try:
            return waiting_request(metadata)
        except Fatal as error:  # no reason to stop the stream
            text = metadata.configuration.get(REQUEST)
            if text != self._refused:
                log.warning("a request to optimize is passed over", table=self._url, reason=str(error))
                self._refused = text
            return None

    def _look_for_files_to_rewrite(self, version: int) -> None:
        metadata = self.writer.snapshot.metadata
        if MaintenanceTask.COMPACTION in self._queued or metadata is None:
            return
        self._compact_from = version + FANOUT
        files = list(self.writer.snapshot.files.values())
        if self._columns is not None:
            taken = {file.path for file in files if self._columns.concerns(file)}
            job = partial(self._compact, version, metadata.schema_string, files, taken)
            self._start(MaintenanceTask.COMPACTION, job)
        else:
            self._start(MaintenanceTask.COMPACTION, partial(self._compact_copy_on_write, version, files))

    def _change_columns(self, columns: ColumnChanges) -> None:
        try:
            step = columns.step()
        except (ArrowException, OSError, ValueError) as error:
            columns.wait()
            self._failed(MaintenanceTask.PROMOTION, error)
            return
        if step is not None:
            self._start(*step)

    def _land(self) -> None:
        """Commit the rewrite that the worker has finished."""
        rewrite, writer = self._rewrite, self.writer
        if rewrite is None or not isinstance(writer, REWRITABLE):
            return
        if any(is_too_old(output.add, self._wall_clock()) for output in rewrite.outputs):
            self._drop_rewrite("they could not be committed for so long that vacuum may have deleted them")
            return
        started = time.perf_counter()
        sizes = [file.size for path in rewrite.inputs if (file := writer.snapshot.files.get(path)) is not None]
        try:
            result = writer.replace_files(rewrite)  # Transient: kept, and tried again next turn
        except RowsMoved as moved:
            self._drop_rewrite(str(moved))
            return
        self._rewrite = None
        self._compact_from = writer.version  # there may be more
        self._count(MaintenanceTask.COMPACTION, MaintenanceOutcome.DONE)
        if self._request is not None:
            self._request.rewrote(rewrite, sizes)
        log.info(
            "files rewritten",
            table=writer.location.url,
            version=writer.version,
            read_version=rewrite.read_version,
            files_in=len(rewrite.inputs),
            files_out=len(rewrite.outputs),
            rows=0 if result is None else result.rows_written,
            commit_s=round(time.perf_counter() - started, 3),
        )

    def _drop_rewrite(self, reason: str) -> None:
        self._rewrite = None
        self._count(MaintenanceTask.COMPACTION, MaintenanceOutcome.ABORTED)
        log.info("rewritten files dropped", table=self._url, reason=reason)

    # -- in the worker's thread ---------------------------------------------------------------------------------------

    def _start(self, task: MaintenanceTask, job: Callable[[Budget], bool]) -> None:
        if task not in self._queued:
            self._queued.add(task)
            self._worker.submit(URGENCY[task], partial(self._run, task, job))

    def _run(self, task: MaintenanceTask, job: Callable[[Budget], bool]) -> None:
        """Run a job within the budget. It returns whether it is done; a rewrite is only once it is committed."""
        with self._running:
            if self._stop.is_set():
                return
            budget = Budget(self._policy.cpu_share, self._policy.bytes_per_s, self._stop)
            try:
                if job(budget):
                    self._count(task, MaintenanceOutcome.DONE)
                budget.used()
            except Stopped:
                pass
            except CommitFailedError as error:
                self._count(task, MaintenanceOutcome.ABORTED)
                log.info("maintenance gave way to a commit", task=task.value, reason=shown(error))
            except (CdcError, DeltaError, BaseError, ArrowException, OSError, ValueError) as error:
                self._wait_after_failure(task)
                self._failed(task, error)
            finally:
                self._show(task, budget)
                self._queued.discard(task)

    def _failed(self, task: MaintenanceTask, error: Exception) -> None:
        self._count(task, MaintenanceOutcome.FAILED)
        log.warning(
            "maintenance failed; it is tried again",
            task=task.value,
            table=self._url,
            reason=shown(error),
            exc_info=not may_be_shown(error),
        )

    def _wait_after_failure(self, task: MaintenanceTask) -> None:
        if task is MaintenanceTask.COMPACTION:
            self._compact_after = self._clock() + AFTER_FAILURE_S
        elif task is MaintenanceTask.VACUUM:
            self._vacuum_after = self._clock() + self._policy.first_vacuum_s
        elif task in COLUMN_TASKS and self._columns is not None:
            self._columns.wait()

    def _checkpoint(self, version: int, budget: Budget) -> bool:
        write_checkpoint(self.writer.location, version, budget)
        log.info("checkpoint written", table=self._url, version=version)
        return True

    def _compact(
        self, version: int, schema_string: str, files: list[AddFile], taken: Collection[str], budget: Budget
    ) -> bool:
        """`taken` files are rewritten with other columns just now."""
        shapes = [shape for file in files if (shape := FileShape.of(file)) is not None]
        self._show_shape(shapes)
        free = [each for each in shapes if each.file.path not in taken]
        request = self._request
        chosen = request.choose(free, self._policy.target_bytes) if request is not None and request.is_gathering else ()
        chosen = chosen or choose_files(free, self._policy.target_bytes)
        if chosen:
            store, cache_dir = self.writer.location.store, self.writer.cache_dir
            self._rewrite = rewrite_files(store, version, schema_string, chosen, budget, cache_dir, self._wall_clock)
        return False

    def _compact_copy_on_write(self, version: int, files: list[AddFile], budget: Budget) -> bool:
        target_bytes = self._policy.target_bytes
        try:
            return compact_copy_on_write(self.writer.location, version, files, target_bytes, budget)
        finally:
            self._overtaken = True

    def _vacuum(self, budget: Budget) -> bool:
        store, retention = self.writer.location.store, self._policy.retention
        retained = deletable_log(store, retention, self._wall_clock())
        if retained is None:  # what is announced now is deleted next time
            self._note_vacuum()
            return True
        deleted = vacuum(store, retained, retention, budget)
        self._show_deleted(deleted)
        log_files = clean_up_log(store, retained, budget)
        self._show_deleted(log_files)
        self._note_vacuum(deleted, log_files)
        log.info(
            "vacuum finished",
            table=self._url,
            oldest_version=retained.oldest,
            files=deleted.files | log_files.files,
            bytes=deleted.size_bytes + log_files.size_bytes,
        )
        return True

    def _note_vacuum(self, *deleted: Deleted) -> None:
        if self._request is not None:
            self._request.vacuumed(*deleted)

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def _url(self) -> str:
        return self.writer.location.url

    def _count(self, task: MaintenanceTask, outcome: MaintenanceOutcome) -> None:
        self._metrics.maintenance_runs.labels(*self._labels, task, outcome).inc()

    def _show(self, task: MaintenanceTask, budget: Budget) -> None:
        metrics, labels = self._metrics, self._labels
        metrics.maintenance_seconds.labels(*labels, task).inc(budget.worked_s)
        metrics.maintenance_rest_seconds.labels(*labels, task).inc(budget.rested_s)
        metrics.maintenance_bytes.labels(*labels, "read").inc(budget.bytes_read)
        metrics.maintenance_bytes.labels(*labels, "written").inc(budget.bytes_written)

    def _show_deleted(self, deleted: Deleted) -> None:
        for kind, files in deleted.files.items():
            self._metrics.maintenance_deleted_files.labels(*self._labels, kind).inc(files)
        self._metrics.maintenance_deleted_bytes.labels(*self._labels).inc(deleted.size_bytes)

    def _show_shape(self, shapes: list[FileShape]) -> None:
        rows, dead = sum(shape.rows for shape in shapes), sum(shape.dead for shape in shapes)
        vectors = {vector.path_or_inline_dv for shape in shapes if (vector := shape.file.deletion_vector) is not None}
        self._metrics.table_files.labels(*self._labels, "deletion_vector").set(len(vectors))
        self._metrics.table_dead_rows_share.labels(*self._labels).set(dead / max(1, rows))
