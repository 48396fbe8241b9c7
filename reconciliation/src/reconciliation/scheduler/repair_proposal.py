"""Proposes a repair of what a job found, when the job says so; somebody with the permission must still approve it."""

from collections.abc import Mapping
from typing import Final

from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.database import Database
from reconciliation.scheduler.job import Job

MAX_KEYS: Final = 10_000
"""More is not proposed by itself: somebody should look first. Proposed by hand, a repair may be larger."""
REPAIRED: Final = (
    DifferenceKind.MISSING,
    DifferenceKind.EXTRA,
    DifferenceKind.DUPLICATED,
    DifferenceKind.DIFFERENT,
    DifferenceKind.DEAD_LETTERED,
)
_WHY_NOT: Final[Mapping[DifferenceKind, str]] = {
    DifferenceKind.DECODER: "the writer would read the document in the same way again: report the fault",
    DifferenceKind.REJECTED: "a rule rejects the document: correct the document or the rule",
    DifferenceKind.FILTERED: "as the pipeline's filter says: nothing is wrong",
    DifferenceKind.LAGGING: "not settled yet: let the writer come as far, and compare again",
}
_UNKNOWN_ID: Final = "the table does not tell which document the row is of (its _id is masked): resync the collection"

log = get_logger(__name__)


async def propose_repair(database: Database, job: Job) -> None:
    """Leave a repair of everything that can be repaired for approval. Raises `Transient` without Postgres."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT d.kind, d.source_key IS NOT NULL AS is_known, count(*) AS keys FROM reconciliation_differences d "
            "JOIN reconciliation_runs r ON r.id = d.run_id WHERE r.job_id = $1 GROUP BY 1, 2 ORDER BY 1, 2",
            job.id,
        )
        by_kind: dict[str, int] = {}
        left = []
        for row in rows:
            kind = DifferenceKind(row["kind"])
            if kind in REPAIRED and row["is_known"]:
                by_kind[kind.value] = row["keys"]
            else:
                left.append({"kind": kind.value, "keys": row["keys"], "reason": _WHY_NOT.get(kind, _UNKNOWN_ID)})
        keys = sum(by_kind.values())
        if not 0 < keys <= MAX_KEYS:
            log.warning("no repair is proposed", job=str(job.id), keys=keys, max_keys=MAX_KEYS)
            return
        await connection.execute(
            "INSERT INTO reconciliation_repairs (pipeline, job_id, kinds, max_keys, plan, proposed_by) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            job.pipeline,
            job.id,
            list(REPAIRED),
            MAX_KEYS,
            {"keys": keys, "by_kind": by_kind, "not_repairable": left},
            job.requested_by,
        )
    log.info("repair proposed", job=str(job.id), pipeline=job.pipeline, keys=keys)
