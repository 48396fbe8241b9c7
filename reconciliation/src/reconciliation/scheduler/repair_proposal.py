"""Proposes a repair of what a job found, when the job says so; somebody with the permission must still approve it."""

from typing import Final

from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import DifferenceKind
from cdc_shared.models.repair_plan import COUNT_DIFFERENCES, DEFAULT_MAX_KEYS, REPAIRABLE, plan_repair
from reconciliation.database import Database
from reconciliation.scheduler.job import Job

# Who wrote the schedule asked for what it finds to be repaired: approving it is somebody else's (docs/adr/0027).
_SCHEDULED_BY: Final = (
    "(SELECT s.updated_by FROM reconciliation_schedules s JOIN reconciliation_jobs j ON j.schedule_id = s.id "
    "WHERE j.id = $2)"
)

log = get_logger(__name__)


async def propose_repair(database: Database, job: Job) -> None:
    """Leave a repair of everything that can be repaired for approval. Raises `Transient` without Postgres."""
    async with database.transaction() as connection:
        rows = await connection.fetch(COUNT_DIFFERENCES, job.id)
        counts = {(DifferenceKind(row["kind"]), bool(row["is_known"])): int(row["keys"]) for row in rows}
        plan = plan_repair(counts, REPAIRABLE)
        if not 0 < plan.keys <= DEFAULT_MAX_KEYS:
            log.warning("no repair is proposed", job=str(job.id), keys=plan.keys, max_keys=DEFAULT_MAX_KEYS)
            return
        await connection.execute(
            "INSERT INTO reconciliation_repairs (pipeline, job_id, kinds, max_keys, plan, proposed_by) "
            f"VALUES ($1, $2, $3, $4, $5, coalesce({_SCHEDULED_BY}, $6)) ON CONFLICT DO NOTHING",  # nosec B608
            job.pipeline,
            job.id,
            list(REPAIRABLE),
            DEFAULT_MAX_KEYS,
            plan.model_dump(mode="json"),
            job.requested_by,
        )
    log.info("repair proposed", job=str(job.id), pipeline=job.pipeline, keys=plan.keys)
