"""Changes of one table's columns: asked for, announced, carried out in steps, reported."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.checkpointer import write_checkpoint
from delta_writer.maintenance.column_rewrite import ColumnChange, ColumnRewrite, Progress
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.purge import purge
from delta_writer.maintenance.remask import PURGE
from delta_writer.writer.batch_upload import MAX_UPLOAD_AGE_S
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.file_changes import Overtaken
from delta_writer.writer.history_writer import HistoryWriter

ROWS_PER_CPU_S: Final = 150_000
"""What an announcement reckons with until the rewrite itself shows how fast it is. Measured: 100,000 to 250,000."""
REPORT_EVERY_S: Final = 60.0
AFTER_FAILURE_S: Final = 60.0

log = get_logger(__name__)


class ColumnChanges:
    """Of one table, in the pipeline's thread.

    `wanted` says, from the table's metadata, what is to be done next; it is asked several times a second. `report`
    takes what people should know of it while it is under way, None when nothing is. `count` takes outcomes.
    """

    def __init__(
        self,
        writer: DeletionVectorWriter | HistoryWriter,
        policy: MaintenancePolicy,
        wanted: Callable[[Metadata], ColumnChange | None],
        report: Callable[[str | None], None],
        count: Callable[[MaintenanceTask, MaintenanceOutcome], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._policy = policy
        self._wanted = wanted
        self._report = report
        self._count = count
        self._clock = clock
        self._wall_clock = wall_clock
        self._rewrite: ColumnRewrite | None = None
        self._began_at = self._reported_at = 0.0
        self._not_before = float("-inf")
        self._purged: int | None = None  # by the worker
        self._overtaken: Overtaken | None = None  # by the worker

    def step(self) -> tuple[MaintenanceTask, Callable[[Budget], bool]] | None:
        """Go on with the change under way, or begin the next; return the worker's job for it, if there is one.

        Not to be called again before the job is over. Blocks for one commit at most. Raises `Transient`.
        """
        metadata = self._writer.snapshot.metadata
        if metadata is None or self._clock() < self._not_before:
            return None
        if self._rewrite is None and (before := metadata.configuration.get(PURGE)):
            return self._go_on_purging(int(before))
        if self._rewrite is None:
            change = self._wanted(metadata)
            if change is None:
                return None
            self._begin(change)
            return None  # announced: begun in the next turn
        return self._go_on(self._rewrite)

    def concerns(self, file: AddFile) -> bool:
        """Tell whether the file is being rewritten, or was: it is not worth compacting."""
        return self._rewrite is not None and self._rewrite.concerns(file.path)

    def wait(self) -> None:
        """Do nothing for a while: something has failed. What is rewritten already is kept."""
        self._not_before = self._clock() + AFTER_FAILURE_S

    def close(self) -> None:
        """Drop what is under way; another process, or this one when it opens the table again, begins it anew."""
        if self._rewrite is not None:
            self._rewrite.close()
            self._rewrite = self._overtaken = None
            self._report(None)

    def _begin(self, change: ColumnChange) -> None:
        max_age_s = max(MAX_UPLOAD_AGE_S, self._policy.retention.versions_s)  # so long vacuum leaves uploads alone
        self._rewrite = ColumnRewrite(self._writer, change, self._policy.target_bytes, max_age_s, self._wall_clock)
        self._began_at = self._reported_at = self._clock()
        progress = self._rewrite.progress()
        log.info(
            "columns are to be rewritten",
            table=self._writer.location.url,
            what=str(change),
            rows=progress.rows,
            bytes=progress.bytes,
            estimated_minutes=round(self._remaining_s(progress) / 60, 1),
        )
        self._report(self._text(change, progress))

    def _go_on(self, rewrite: ColumnRewrite) -> tuple[MaintenanceTask, Callable[[Budget], bool]] | None:
        started = time.perf_counter()
        try:
            if self._overtaken is not None:
                raise self._overtaken
            job = rewrite.step()
        except Overtaken as overtaken:
            log.info("rewritten columns dropped", table=self._writer.location.url, reason=str(overtaken))
            self._end(rewrite, MaintenanceOutcome.ABORTED)
            self.wait()
            return None
        if job is None:
            log.info(
                "columns rewritten",
                table=self._writer.location.url,
                what=str(rewrite.change),
                version=self._writer.version,
                rows=0 if rewrite.result is None else rewrite.result.rows_written,
                seconds=round(self._clock() - self._began_at, 1),
                commit_s=round(time.perf_counter() - started, 3),
            )
            self._end(rewrite, MaintenanceOutcome.DONE)
            return None
        if self._clock() - self._reported_at >= REPORT_EVERY_S:
            self._show_progress(rewrite)
        return rewrite.change.task, partial(self._work, job)

    def _work(self, job: Callable[[Budget], bool], budget: Budget) -> bool:
        """In the worker's thread."""
        try:
            return job(budget)
        except Overtaken as overtaken:  # to try the same again would never help
            self._overtaken = overtaken
            return False

    def _go_on_purging(self, before: int) -> tuple[MaintenanceTask, Callable[[Budget], bool]] | None:
        """Delete the versions from before the masks, and note when that is done."""
        if self._purged == before:
            self._writer.set_properties({PURGE: ""})
            self._report(None)
            return None
        log.warning("all older versions are deleted now", table=self._writer.location.url, before_version=before)
        self._report(
            f"the versions before {before} of {self._writer.location.url}, which lack masks, are being deleted"
        )
        return MaintenanceTask.REMASK, partial(self._purge, before)

    def _purge(self, before: int, budget: Budget) -> bool:
        """In the worker's thread."""
        location = self._writer.location
        data, log_files = purge(location.store, before, lambda v: write_checkpoint(location, v, budget), budget)
        log.info(
            "older versions deleted",
            table=location.url,
            before_version=before,
            files=data.files | log_files.files,
            bytes=data.size_bytes + log_files.size_bytes,
        )
        self._purged = before
        return False

    def _end(self, rewrite: ColumnRewrite, outcome: MaintenanceOutcome) -> None:
        self._count(rewrite.change.task, outcome)
        self.close()

    def _show_progress(self, rewrite: ColumnRewrite) -> None:
        self._reported_at = self._clock()
        progress = rewrite.progress()
        log.info(
            "columns are being rewritten",
            table=self._writer.location.url,
            what=str(rewrite.change),
            rows_done=progress.done_rows,
            rows=progress.rows,
            remaining_minutes=round(self._remaining_s(progress) / 60, 1),
        )
        self._report(self._text(rewrite.change, progress))

    def _text(self, change: ColumnChange, progress: Progress) -> str:
        done = 100 * progress.done_rows // max(1, progress.rows)
        minutes = self._remaining_s(progress) / 60
        return (
            f"{change}: {progress.rows} rows in {progress.bytes / 1e9:.1f} GB are being rewritten in the background, "
            f"{done} % are done, about {max(1, round(minutes))} minutes to go"
        )

    def _remaining_s(self, progress: Progress) -> float:
        """Reckon by the rate so far, at first by what the budget allows."""
        left_rows, left_bytes = progress.rows - progress.done_rows, progress.bytes - progress.done_bytes
        spent_s = self._clock() - self._began_at
        if progress.done_rows and spent_s:
            return left_rows * spent_s / progress.done_rows
        return max(left_rows / ROWS_PER_CPU_S / self._policy.cpu_share, 2 * left_bytes / self._policy.bytes_per_s)
