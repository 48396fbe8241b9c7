"""`delta-writer optimize`: ask a pipeline's writer to put small files together and to vacuum; tell what it saved."""

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cdc_shared.delta.actions import Metadata
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.optimize_request import (
    REQUEST,
    OptimizeReport,
    OptimizeRequest,
    last_report,
    request_property,
)
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.requested_tables import ask, requested_tables
from delta_writer.maintenance.retention import retained_log
from delta_writer.maintenance.rewrite_plan import FileShape, gather_files
from delta_writer.maintenance.vacuum import clean_up_log, vacuum

POLL_S: Final = 1.0
REMINDER_S: Final = 60.0
MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A table that was asked, and the request's id."""

    url: str
    location: TableLocation
    request: str


def ask_to_optimize(
    stores: ObjectStoreSettings,
    spec: PipelineSpec,
    collection: str | None,
    say: Callable[[str], None],
    *,
    with_vacuum: bool,
    dry_run: bool,
    now: Callable[[], float] = time.time,
) -> list[Asked]:
    """Ask for it in the tables of one collection, or of all, histories too; none with `dry_run`, which tells the gain.

    What is asked again while it waits is done once. Raises `Fatal` when there is no such table, `Transient` when
    the store does not answer.
    """
    asked = []
    for _, location, state in requested_tables(stores, spec, collection):
        for line in _gain(location, state, MaintenancePolicy.of(spec.maintenance), now(), with_vacuum=with_vacuum):
            say(f"{location.url}: {line}")
        if not dry_run:
            request = OptimizeRequest(id=uuid.uuid4().hex, asked_ms=int(now() * 1000), vacuum=with_vacuum)
            _ask(location, request)
            asked.append(Asked(location.url, location, request.id))
    say(
        "nothing was asked for (--dry-run)" if dry_run else "asked for; the pipeline's writer does it beside the stream"
    )
    return asked


def follow(
    asked: list[Asked],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[OptimizeReport]:
    """Wait until every table has been optimized, and say what came of each.

    A request that a later one has taken the place of is not waited for. Raises `Transient` when the store does not
    answer.
    """
    waiting, reports, reminded = list(asked), [], clock()
    while waiting:
        for each in list(waiting):
            with store_errors(f"reading the log of {each.url}"):
                metadata = DeltaLog(each.location.store).load().metadata
            report = None if metadata is None else last_report(metadata)
            if report is not None and report.id == each.request:
                waiting.remove(each)
                reports.append(report)
                say(f"{each.url}: {_told(report)}")
            elif metadata is None or each.request not in metadata.configuration.get(REQUEST, ""):
                waiting.remove(each)
                say(f"{each.url}: somebody else has asked since, or the table is gone")
        if waiting and clock() - reminded >= REMINDER_S:
            reminded = clock()
            urls = ", ".join(each.url for each in waiting)
            say(f"waiting for {urls}: the writer must run, and keeps to its budget")
        if waiting:
            sleep(POLL_S)
    return reports


def _ask(location: TableLocation, request: OptimizeRequest) -> None:
    def wanted(_: Metadata) -> Mapping[str, str]:
        return request_property(request)

    ask(location, wanted, "CDC ASK TO OPTIMIZE", {"vacuum": str(request.vacuum).lower()}, request.asked_ms)


def _told(report: OptimizeReport) -> str:
    saved = report.bytes_read - report.bytes_written
    gathered = (
        f"{report.files_read:,} files became {report.files_written:,} ({saved / MB:,.1f} MB smaller)"
        if report.files_read
        else "its files were in shape"
    )
    return f"{gathered}; vacuum deleted {report.deleted_files:,} files, {report.deleted_bytes / MB:,.1f} MB"


def _gain(
    location: TableLocation, state: Snapshot, policy: MaintenancePolicy, now: float, *, with_vacuum: bool
) -> Iterator[str]:
    shapes = [shape for file in state.files.values() if (shape := FileShape.of(file)) is not None]
    size, dead = sum(each.file.size for each in shapes), sum(each.dead for each in shapes)
    left, taken = list(shapes), []
    while chosen := {file.path for file in gather_files(left, policy.target_bytes)}:
        taken += [each for each in left if each.file.path in chosen]
        left = [each for each in left if each.file.path not in chosen]
    yield (
        f"{len(shapes):,} data files, {size / MB:,.1f} MB, {dead:,} deleted rows in them; {len(taken):,} files "
        f"({sum(each.file.size for each in taken) / MB:,.1f} MB) would be rewritten"
    )
    if with_vacuum:
        budget = Budget(1.0, math.inf, threading.Event())
        with store_errors(f"looking for what vacuum would delete at {location.url}"):
            retained = retained_log(location.store, policy.retention, now)
            if retained is None:
                return
            found = [
                vacuum(location.store, retained, policy.retention, budget, dry_run=True),
                clean_up_log(location.store, retained, budget, dry_run=True),
            ]
        files, size = sum(sum(each.files.values()) for each in found), sum(each.size_bytes for each in found)
        yield (
            f"{files:,} files ({size / MB:,.1f} MB) are needed by no version of the last {policy.log_retention[9:]}; "
            "vacuum announces that, and deletes them when it comes the next time"
        )
