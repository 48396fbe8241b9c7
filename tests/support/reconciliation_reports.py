"""A run's result as reports are made of it, with whatever a test wants in it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import WRONG, DifferenceKind, JobOptions, Mode, Outcome
from reconciliation.reconciler.data_comparator import RangeDigest
from reconciliation.reconciler.difference import Difference, FieldDifference, How
from reconciliation.reconciler.result import PhaseTime, RunResult, RunSummary
from reconciliation.reporters.report import Report, ReportedRun

STARTED = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)
RUN_ID = "4b0c8f66-0d3c-4e55-8f8c-3f0f6f2c1a11"
JOB_ID = "a0f4b3d2-1c5e-4a7b-9a3e-77b8f1f9c0de"
COLLECTION = Collection("shop", "orders")


def difference(
    kind: DifferenceKind = DifferenceKind.DIFFERENT,
    key: str = "1",
    fields: Sequence[tuple[str, How]] = (),
    document: Any = None,
    row: Any = None,
    **more: Any,
) -> Difference:
    """One difference; document and row are given as JSON values, None is none."""
    return Difference(
        key,
        more.pop("source_key", None),
        kind,
        tuple(FieldDifference(pointer, how) for pointer, how in fields),
        None if document is None else json.dumps(document),
        None if row is None else json.dumps(row),
        **more,
    )


def report(
    differences: Sequence[Difference] = (),
    digest_map: Sequence[RangeDigest] = (),
    timeline: Sequence[PhaseTime] = (),
    notes: Sequence[str] = (),
    verified_through: datetime | None = None,
    collection: Collection = COLLECTION,
    mode: Mode = Mode.FULL,
    **numbers: Any,
) -> Report:
    """The report of a run that found these differences."""
    counts: dict[DifferenceKind, int] = {}
    for each in differences:
        counts[each.kind] = counts.get(each.kind, 0) + 1
    outcome = Outcome.DIFFERENCES if counts.keys() & WRONG else Outcome.EQUAL
    summary = RunSummary(
        mode,
        differences=counts,
        timeline=timeline,
        notes=notes,
        **{"documents": 1_000, "rows": 1_000, "compared": 1_000, "version": 7, **numbers},
    )
    run = ReportedRun(
        RUN_ID,
        JOB_ID,
        "shop",
        collection,
        Mode.FULL,
        JobOptions(),
        "schedule nightly",
        STARTED,
        STARTED + timedelta(seconds=100),
    )
    return Report(run, RunResult(outcome, summary, differences, digest_map, verified_through))
