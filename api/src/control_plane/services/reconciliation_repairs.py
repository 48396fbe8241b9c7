"""Repairs: planned from what a job found, proposed, and decided by somebody else (docs/adr/0027-repair-approval.md)."""

from uuid import UUID

from cdc_shared.models.reconciliation import JobState, RepairState
from cdc_shared.models.repair_plan import plan_repair
from control_plane.database import Connection
from control_plane.models.repairs import NewRepair, Repair, RepairProposal
from control_plane.problems import Problem
from control_plane.repositories import reconciliation_repo, repair_repo
from control_plane.services.reconciliation_scheduler import no_job


async def propose(connection: Connection, pipeline: str, job_id: UUID, wanted: NewRepair, by: str) -> RepairProposal:
    """Plan a repair of what a job found and, unless it is a dry run, leave it for approval.

    Raises `Problem` 404; 409 for a job that is not completed; and where it is no dry run 409 when there is nothing to
    repair, when there is more than `max_keys`, and while another repair of the job is not finished.
    """
    job = await reconciliation_repo.find_job(connection, pipeline, job_id)
    if job is None:
        raise no_job(pipeline)
    if job.state is not JobState.COMPLETED:
        raise Problem(
            409,
            "job_not_completed",
            f"the job is {job.state}: what it has found is no verdict. Repair what a completed one found",
            members={"state": job.state},
        )
    planned = plan_repair(await reconciliation_repo.count_differences(connection, job_id), wanted.kinds)
    fits = planned.keys <= wanted.max_keys
    if wanted.dry_run:
        return RepairProposal(dry_run=True, plan=planned, within_max_keys=fits, repair=None)
    if planned.keys == 0:
        raise Problem(409, "nothing_to_repair", "the job found nothing of these kinds that can be repaired by this")
    if not fits:
        raise Problem(
            409,
            "too_many_keys",
            f"{planned.keys:,} keys would be repaired, and max_keys is {wanted.max_keys:,}: look at the differences "
            "first; then allow as many, or resync the collection",
            members={"keys": planned.keys, "max_keys": wanted.max_keys},
        )
    repair = await repair_repo.insert(connection, pipeline, job_id, wanted.kinds, wanted.max_keys, planned, by)
    if repair is None:
        raise await _another(connection, job_id)
    return RepairProposal(dry_run=False, plan=planned, within_max_keys=True, repair=repair)


async def repairs(
    connection: Connection, pipeline: str, state: RepairState | None, before: int | None, limit: int
) -> tuple[list[Repair], int | None]:
    """The pipeline's repairs, newest first, and the `before` of the next page."""
    found = await repair_repo.page(connection, pipeline, state, before, limit + 1)
    following = found[limit - 1][0] if len(found) > limit else None
    return [each for _, each in found[:limit]], following


async def repair(connection: Connection, pipeline: str, repair_id: UUID) -> Repair:
    """Raises `Problem` 404."""
    found = await repair_repo.find(connection, pipeline, repair_id)
    if found is None:
        raise _no_repair(pipeline)
    return found


async def approve(connection: Connection, pipeline: str, repair_id: UUID, by: str, *, own_too: bool) -> Repair:
    """Have a proposed repair applied. Who approved it already may ask again, for an answer that got lost.

    Raises `Problem` 404; 403 for whoever proposed it, unless `own_too`; 409 when it is not (any longer) proposed.
    """
    found = await _held(connection, pipeline, repair_id)
    if found.decided_by == by and found.state is not RepairState.REJECTED:
        return found
    _check_proposed(found)
    if not own_too and found.proposed_by.casefold() == by.casefold():
        raise Problem(
            403,
            "own_proposal",
            "you proposed this repair: somebody else must approve it (API_REPAIR_SELF_APPROVAL allows one's own)",
        )
    return await repair_repo.decide(connection, repair_id, RepairState.APPROVED, by)


async def reject(connection: Connection, pipeline: str, repair_id: UUID, by: str) -> Repair:
    """Turn a proposed repair down, or withdraw one's own. Who has rejected it already may ask again.

    Raises `Problem` 404; 409 when it is not (any longer) proposed.
    """
    found = await _held(connection, pipeline, repair_id)
    if found.decided_by == by and found.state is RepairState.REJECTED:
        return found
    _check_proposed(found)
    return await repair_repo.decide(connection, repair_id, RepairState.REJECTED, by)


async def _held(connection: Connection, pipeline: str, repair_id: UUID) -> Repair:
    found = await repair_repo.find(connection, pipeline, repair_id, lock=True)
    if found is None:
        raise _no_repair(pipeline)
    return found


def _check_proposed(repair: Repair) -> None:
    if repair.state is not RepairState.PROPOSED:
        raise Problem(
            409,
            "repair_decided",
            f"the repair is {repair.state}: it can be approved or rejected only while it is proposed",
            members={"state": repair.state},
        )


async def _another(connection: Connection, job_id: UUID) -> Problem:
    other = await repair_repo.unfinished(connection, job_id)
    members = {} if other is None else {"repair": str(other.id), "state": other.state}
    return Problem(
        409,
        "repair_in_progress",
        "there is a repair of this job that is not finished: approve or reject it, or wait for its end",
        members=members,
    )


def _no_repair(pipeline: str) -> Problem:
    return Problem(404, "not_found", f"pipeline {pipeline} has no repair of that id")
