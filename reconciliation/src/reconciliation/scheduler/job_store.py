"""Jobs and their runs in Postgres, as a worker takes, holds and ends them.

Times are Postgres's own, so that processes whose clocks differ agree on who is silent. Every write names the claim; one
that was lost raises `ClaimLost`, and the worker ends without another word.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from cdc_shared.errors import CdcError
from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import JobOptions, JobState, Mode, Notifications, Outcome, Overlap
from reconciliation.database import Connection, Database
from reconciliation.scheduler.job import Claim, Job, Run, job_of, run_of
from reconciliation.storable_text import storable, storable_value

_OVERLAPPING: Final = """
o.pipeline = j.pipeline AND o.id <> j.id AND o.finished_at IS NULL
AND (o.collections IS NULL OR j.collections IS NULL OR o.collections && j.collections)
"""
_BEFORE: Final = "(o.state = 'running' OR (o.number < j.number AND o.wanted = 'run'))"
"""Of two that overlap the one that runs comes first, then the one that was asked for first. One that people have paused
holds nobody up.
"""
_READY: Final = "j.wanted = 'run' AND j.state IN ('queued', 'paused') AND j.worker IS NULL"
_SILENT: Final = "j.state = 'running' AND j.heartbeat_at < now() - make_interval(secs => $2)"
_MINE: Final = "id = $1 AND worker = $2 AND attempts = $3 AND state = 'running'"


MAX_LOSSES: Final = 5
"""A job that so many processes have died of is not given to another one."""
DEADLY: Final = (
    f"its process was gone {MAX_LOSSES} times before it was over: was it killed, for want of memory? See the service's "
    "log, and ask for it again, for fewer collections at once"
)
UNREADABLE: Final = "its options or notifications cannot be read: they were written by another release, or by hand"


class ClaimLost(CdcError):
    """Another process has the job: this one was silent for too long."""


class JobStore:
    """What one worker does with jobs. `worker` is its name, `takeover_s` the silence after which others take over."""

    def __init__(self, database: Database, worker: str, takeover_s: float) -> None:
        self._database = database
        self._worker = worker
        self._takeover_s = takeover_s

    async def put_back_own(self) -> int:
        """Queue again what this worker held before it was killed; how many jobs. Only before it takes any."""
        async with self._database.connection() as connection:
            return len(
                await connection.fetch(
                    "UPDATE reconciliation_jobs SET state = 'queued', worker = NULL, heartbeat_at = NULL, "
                    "losses = losses + 1 WHERE worker = $1 AND state = 'running' RETURNING id",
                    self._worker,
                )
            )

    async def follow_wishes(self) -> None:
        """End and pause the jobs that nobody works, as people want."""
        nobodys = f"(j.worker IS NULL OR ({_SILENT.replace('$2', '$1')}))"
        async with self._database.transaction() as connection:
            ended = await connection.fetch(
                "UPDATE reconciliation_jobs j SET state = 'cancelled', finished_at = now(), worker = NULL "  # nosec B608
                f"WHERE j.finished_at IS NULL AND j.wanted = 'cancel' AND {nobodys} RETURNING id",
                self._takeover_s,
            )
            await _end_runs(connection, [row["id"] for row in ended], JobState.CANCELLED)
            await connection.execute(
                "UPDATE reconciliation_jobs j SET state = 'paused', worker = NULL, heartbeat_at = NULL "  # nosec B608
                f"WHERE j.state IN ('queued', 'running') AND j.wanted = 'pause' AND {nobodys}",
                self._takeover_s,
            )

    async def take(self, *, has_room: bool) -> Job | None:
        """Claim the job whose turn it is; None when there is none.

        Without room for another one, only those that will be skipped because of others are taken. The verification of a
        repair compares a few keys: others wait for it, and are not skipped because of it.
        """
        row_query = f"""
        UPDATE reconciliation_jobs SET state = 'running', worker = $1, heartbeat_at = now(), attempts = attempts + 1,
            losses = losses + (state = 'running')::int, started_at = coalesce(started_at, now())
        WHERE id = (
            SELECT j.id FROM reconciliation_jobs j
            CROSS JOIN LATERAL (
                SELECT count(*) > 0 AS is_blocked, count(*) FILTER (WHERE o.repair_id IS NULL) > 0 AS is_covered
                FROM reconciliation_jobs o WHERE {_OVERLAPPING} AND {_BEFORE}
            ) b
            WHERE j.finished_at IS NULL AND (
                ({_READY} AND ((j.overlap = 'skip' AND b.is_covered) OR ($3 AND NOT b.is_blocked)))
                OR ($3 AND j.wanted = 'run' AND {_SILENT})
            )
            ORDER BY j.number LIMIT 1 FOR UPDATE OF j SKIP LOCKED
        ) RETURNING *"""  # nosec B608 # constants only
        async with self._database.connection() as connection:
            row = await connection.fetchrow(row_query, self._worker, self._takeover_s, has_room)
        if row is None:
            return None
        try:
            job = job_of(dict(row))
            error = DEADLY if row["losses"] >= MAX_LOSSES else None
        except ValidationError:
            error = UNREADABLE
        if error is None:
            return job
        await self.finish(Claim(row["id"], row["worker"], row["attempts"]), JobState.FAILED, error=error)
        return await self.take(has_room=has_room)

    async def add_own(
        self,
        pipeline: str,
        collections: Sequence[str] | None,
        mode: Mode,
        options: JobOptions,
        overlap: Overlap,
        by: str,
    ) -> Job:
        """Add a job that this worker holds from the start."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "INSERT INTO reconciliation_jobs (pipeline, collections, mode, options, notifications, overlap, state, "
                "worker, heartbeat_at, attempts, requested_by, started_at) "
                "VALUES ($1, $2, $3, $4, $5, $6, 'running', $7, now(), 1, $8, now()) RETURNING *",
                pipeline,
                None if collections is None else list(collections),
                mode,
                options.model_dump(mode="json"),
                Notifications().model_dump(mode="json"),
                overlap,
                self._worker,
                by,
            )
        assert row is not None  # nosec B101 # RETURNING
        return job_of(dict(row))

    async def warn_waiting(self) -> list[tuple[Job, str]]:
        """Say in the `warning` of those that have to wait and want it told, once; they and it."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""UPDATE reconciliation_jobs w SET warning = 'waits for the run of job ' || b.number || ', which '
                    || CASE WHEN b.state = 'running' THEN 'is under way' ELSE 'was asked for before' END
                FROM (
                    SELECT j.id, o.number, o.state, row_number() OVER (PARTITION BY j.id ORDER BY o.number) AS nth
                    FROM reconciliation_jobs j JOIN reconciliation_jobs o ON {_OVERLAPPING} AND {_BEFORE}
                    WHERE {_READY} AND j.overlap = 'warn' AND j.warning IS NULL
                ) b WHERE w.id = b.id AND b.nth = 1 AND w.warning IS NULL
                RETURNING w.*""",  # nosec B608 # constants only
            )
        return [(job_of({**dict(row), "worker": ""}), row["warning"]) for row in rows if _is_readable(dict(row))]

    async def heartbeat(self, claim: Claim) -> str:
        """Say that the job is being worked; what people want of it (`run`, `pause`, `cancel`). Raises `ClaimLost`."""
        async with self._database.connection() as connection:
            wanted = await connection.fetchval(
                f"UPDATE reconciliation_jobs SET heartbeat_at = now() WHERE {_MINE} RETURNING wanted",  # nosec B608
                *_arguments(claim),
            )
        if wanted is None:
            raise _lost(claim)
        return str(wanted)

    async def add_runs(self, claim: Claim, pipeline: str, collections: Sequence[Collection]) -> None:
        """Note the collections of the job; those that are known stay as they are."""
        async with self._database.transaction() as connection:
            await hold(connection, claim)
            await connection.executemany(
                "INSERT INTO reconciliation_runs (job_id, pipeline, database, collection) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT DO NOTHING",
                [(claim.job_id, pipeline, each.database, each.name) for each in collections],
            )

    async def runs(self, job_id: UUID) -> list[Run]:
        """The job's collections, in the order in which they are worked."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                'SELECT * FROM reconciliation_runs WHERE job_id = $1 ORDER BY database COLLATE "C", '
                'collection COLLATE "C"',
                job_id,
            )
        return [run_of(dict(row)) for row in rows]

    async def is_covered(self, job: Job, run: Run) -> bool:
        """Whether another job, which comes before this one, has the collection still before it or under way."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetchval(
                    f"""SELECT EXISTS (
                        SELECT 1 FROM reconciliation_jobs j JOIN reconciliation_jobs o ON {_OVERLAPPING}
                            AND (o.number < j.number AND (o.wanted = 'run' OR o.state = 'running'))
                            AND o.repair_id IS NULL
                        WHERE j.id = $1 AND (o.collections IS NULL OR $3 = ANY(o.collections))
                            AND NOT EXISTS (
                                SELECT 1 FROM reconciliation_runs r WHERE r.job_id = o.id AND r.database = $2
                                    AND r.collection = $3 AND r.finished_at IS NOT NULL))""",  # nosec B608
                    job.id,
                    run.database,
                    run.collection,
                )
            )

    async def waits_for_verification(self, job: Job) -> bool:
        """Whether keys of a repair are being compared just now in what the job is about."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetchval(
                    f"""SELECT EXISTS (
                        SELECT 1 FROM reconciliation_jobs j JOIN reconciliation_jobs o ON {_OVERLAPPING}
                            AND o.state = 'running' AND o.repair_id IS NOT NULL
                        WHERE j.id = $1)""",  # nosec B608 # constants only
                    job.id,
                )
            )

    async def begin_run(self, claim: Claim, run: Run) -> Run:
        """The run is under way. Raises `ClaimLost`."""
        async with self._database.transaction() as connection:
            await hold(connection, claim)
            row = await connection.fetchrow(
                "UPDATE reconciliation_runs SET state = 'running', started_at = coalesce(started_at, now()), "
                "error = NULL WHERE id = $1 RETURNING *",
                run.id,
            )
        if row is None:
            raise _lost(claim)
        return run_of(dict(row))

    async def tell_progress(self, run: Run, progress: dict[str, Any]) -> None:
        """Show how far a run is."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE reconciliation_runs SET progress = $2 WHERE id = $1 AND state = 'running'",
                run.id,
                storable_value(progress),
            )

    async def end_run(self, claim: Claim, run: Run, state: JobState, error: str | None = None) -> None:
        """A run ends without a verdict. Raises `ClaimLost`."""
        async with self._database.transaction() as connection:
            await hold(connection, claim)
            await connection.execute(
                "UPDATE reconciliation_runs SET state = $2, error = $3, finished_at = now() WHERE id = $1",
                run.id,
                state,
                error and storable(error),
            )

    async def finish(
        self, claim: Claim, state: JobState, outcome: Outcome | None = None, error: str | None = None
    ) -> None:
        """The job is over; runs that have not ended end with it. Raises `ClaimLost`."""
        async with self._database.transaction() as connection:
            await hold(connection, claim)
            await _end_runs(connection, [claim.job_id], state)
            await connection.execute(
                "UPDATE reconciliation_jobs SET state = $2, outcome = $3, error = $4, finished_at = now(), "
                "worker = NULL WHERE id = $1",
                claim.job_id,
                state,
                outcome,
                error and storable(error),
            )

    async def release(self, claim: Claim, state: JobState) -> None:
        """Give the job back, `queued` or `paused`; whoever takes it up goes on where it is. Raises `ClaimLost`."""
        async with self._database.transaction() as connection:
            await hold(connection, claim)
            await connection.execute(
                "UPDATE reconciliation_runs SET state = $2 WHERE job_id = $1 AND finished_at IS NULL",
                claim.job_id,
                state,
            )
            await connection.execute(
                "UPDATE reconciliation_jobs SET state = $2, worker = NULL, heartbeat_at = NULL WHERE id = $1",
                claim.job_id,
                state,
            )

    async def unfinished_runs(self) -> set[str]:
        """The ids of all runs whose files are still needed."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT id FROM reconciliation_runs WHERE finished_at IS NULL")
        return {str(row["id"]) for row in rows}


async def hold(connection: Connection, claim: Claim) -> None:
    """Keep the claim until the transaction ends. Raises `ClaimLost`."""
    if not await connection.fetchval(
        f"SELECT true FROM reconciliation_jobs WHERE {_MINE} FOR UPDATE",  # nosec B608 # constants only
        *_arguments(claim),
    ):
        raise _lost(claim)


def _arguments(claim: Claim) -> tuple[UUID, str, int]:
    return claim.job_id, claim.worker, claim.attempt


def _lost(claim: Claim) -> ClaimLost:
    return ClaimLost(
        f"job {claim.job_id} is no longer this process's: it was silent for too long, or the job was deleted"
    )


async def _end_runs(connection: Connection, jobs: Sequence[UUID], state: JobState) -> None:
    await connection.execute(
        "UPDATE reconciliation_runs SET state = $2, finished_at = now() WHERE job_id = ANY($1) AND finished_at IS NULL",
        list(jobs),
        state,
    )


def _is_readable(row: Mapping[str, Any]) -> bool:
    try:
        Notifications.model_validate(row["notifications"])
        JobOptions.model_validate(row["options"])
    except ValidationError:  # it fails when its turn comes
        return False
    return True
