"""Repairs in Postgres, as the service works them: approved → applying → verifying → done or failed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from cdc_shared.errors import CdcError
from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import DifferenceKind, Mode
from cdc_shared.security.data_key import DataKeys
from reconciliation.database import Database
from reconciliation.reconciler.repair_engine import RepairKey, RepairProgress
from reconciliation.reconciler.sealed_keys import open_key
from reconciliation.storable_text import storable

_MINE: Final = "id = $1 AND worker = $2 AND state = 'applying'"


class RepairLost(CdcError):
    """Another process has the repair, or it is gone."""


@dataclass(frozen=True, slots=True)
class Repair:
    """An approved repair. `progress`: by run, how far it has come."""

    id: UUID
    pipeline: str
    job_id: UUID
    kinds: tuple[str, ...]
    max_keys: int
    progress: Mapping[UUID, RepairProgress]


@dataclass(frozen=True, slots=True)
class RepairedRun:
    """A run with differences that the repair is to mend."""

    id: UUID
    collection: Collection


class RepairStore:
    """`worker` is this process's name, `takeover_s` the silence after which others take over."""

    def __init__(self, database: Database, keys: DataKeys, worker: str, takeover_s: float) -> None:
        self._database = database
        self._keys = keys
        self._worker = worker
        self._takeover_s = takeover_s

    async def put_back_own(self) -> None:
        """Let what this worker held before it was killed be taken. Only before it takes any."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE reconciliation_repairs SET worker = NULL WHERE worker = $1 AND state = 'applying'", self._worker
            )

    async def take(self) -> Repair | None:
        """Claim the oldest repair that is approved, or that a process has gone away from; None when there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE reconciliation_repairs SET state = 'applying', worker = $1, heartbeat_at = now()
                WHERE id = (
                    SELECT id FROM reconciliation_repairs
                    WHERE state = 'approved' OR (state = 'applying'
                        AND (worker IS NULL OR heartbeat_at < now() - make_interval(secs => $2)))
                    ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
                ) RETURNING *
                """,
                self._worker,
                self._takeover_s,
            )
        if row is None:
            return None
        progress = {
            UUID(run): msgspec.convert(each, RepairProgress) for run, each in row["progress"].get("runs", {}).items()
        }
        return Repair(row["id"], row["pipeline"], row["job_id"], tuple(row["kinds"]), row["max_keys"], progress)

    async def runs(self, repair: Repair) -> list[RepairedRun]:
        """The runs whose differences are to be repaired."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT r.id, r.database, r.collection FROM reconciliation_runs r WHERE r.job_id = $1 AND EXISTS ("
                "SELECT 1 FROM reconciliation_differences d WHERE d.run_id = r.id AND d.kind = ANY($2) "
                'AND d.source_key IS NOT NULL) ORDER BY r.database COLLATE "C", r.collection COLLATE "C"',
                repair.job_id,
                list(repair.kinds),
            )
        return [RepairedRun(row["id"], Collection(row["database"], row["collection"])) for row in rows]

    async def keys(self, repair: Repair, run: RepairedRun, after: int, limit: int) -> list[RepairKey]:
        """The first keys behind difference `after`. Raises `UnknownDataKey` when what seals them is gone."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT number, kind, key, source_key FROM reconciliation_differences WHERE run_id = $1 "
                "AND kind = ANY($2) AND number > $3 AND source_key IS NOT NULL ORDER BY number LIMIT $4",
                run.id,
                list(repair.kinds),
                after,
                limit,
            )
        return [
            RepairKey(
                row["number"],
                DifferenceKind(row["kind"]),
                row["key"],
                open_key(row["source_key"], self._keys, repair.pipeline, str(run.id), row["number"]),
            )
            for row in rows
        ]

    async def note(self, repair: Repair, progress: Mapping[UUID, RepairProgress]) -> None:
        """Show and keep how far it is; also its heartbeat. Raises `RepairLost`."""
        each = progress.values()
        shown = {
            "asked": sum(one.asked for one in each),
            "applied": sum(one.applied for one in each),
            "replayed": sum(one.replayed for one in each),
            "runs": {str(run): msgspec.to_builtins(one) for run, one in progress.items()},
        }
        async with self._database.connection() as connection:
            _mine(
                await connection.fetchval(
                    f"UPDATE reconciliation_repairs SET progress = $3, heartbeat_at = now() WHERE {_MINE} "  # nosec B608
                    "RETURNING true",
                    repair.id,
                    self._worker,
                    shown,
                )
            )

    async def give_back(self, repair: Repair) -> None:
        """Another process, or this one later, goes on with it."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE reconciliation_repairs SET worker = NULL WHERE {_MINE}",  # nosec B608 # constants only
                repair.id,
                self._worker,
            )

    async def fail(self, repair: Repair, error: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE reconciliation_repairs SET state = 'failed', error = $3, finished_at = now(), "  # nosec B608
                f"worker = NULL WHERE {_MINE}",
                repair.id,
                self._worker,
                storable(error),
            )

    async def verify(self, repair: Repair, runs: list[RepairedRun]) -> None:
        """All was asked for and is in the table: queue the job that compares the keys again. Raises `RepairLost`."""
        async with self._database.transaction() as connection:
            is_mine = f"SELECT true FROM reconciliation_repairs WHERE {_MINE} FOR UPDATE"  # nosec B608 # constants only
            _mine(await connection.fetchval(is_mine, repair.id, self._worker))
            job = await connection.fetchval(
                "INSERT INTO reconciliation_jobs (pipeline, collections, mode, options, repair_id, requested_by) "
                "SELECT pipeline, $2, $3, options - 'repair', $4, $5 FROM reconciliation_jobs WHERE id = $1 "
                "RETURNING id",
                repair.job_id,
                [run.collection.name for run in runs],
                Mode.FULL,
                repair.id,
                f"repair {repair.id}",
            )
            await connection.execute(
                "UPDATE reconciliation_repairs SET state = 'verifying', verification_job_id = $2, worker = NULL "
                "WHERE id = $1",
                repair.id,
                job,
            )

    async def conclude_verified(self) -> None:
        """End the repairs whose verification is over."""
        async with self._database.connection() as connection:
            await connection.execute(_CONCLUDE)


_CONCLUDE: Final = """
UPDATE reconciliation_repairs r SET
    state = CASE WHEN v.outcome = 'equal' THEN 'done' ELSE 'failed' END,
    finished_at = now(),
    progress = r.progress || jsonb_build_object('verification', jsonb_build_object(
        'outcome', v.outcome, 'differences', v.differences)),
    error = CASE
        WHEN v.outcome = 'equal' THEN NULL
        WHEN v.outcome = 'differences' THEN 'some of the keys are still wrong: see the differences of the verification'
        WHEN v.outcome = 'undecided' THEN 'not all of the keys could be verified, they change or the writer is behind: '
            || 'reconcile again'
        WHEN v.state IS NULL THEN 'the verification was deleted: reconcile again'
        ELSE 'the verification was not completed (' || v.state || '): ' || coalesce(v.error, 'reconcile again') END
FROM (
    SELECT p.id, j.state, j.outcome, j.error, (
        SELECT coalesce(jsonb_object_agg(kind, keys), '{}') FROM (
            SELECT d.kind, count(*) AS keys FROM reconciliation_differences d
            JOIN reconciliation_runs u ON u.id = d.run_id WHERE u.job_id = j.id GROUP BY d.kind) k
    ) AS differences
    FROM reconciliation_repairs p LEFT JOIN reconciliation_jobs j ON j.id = p.verification_job_id
    WHERE p.state = 'verifying' AND (j.id IS NULL OR j.finished_at IS NOT NULL)
) v WHERE r.id = v.id AND r.state = 'verifying'
"""


def _mine(is_mine: bool | None) -> None:
    if not is_mine:
        raise RepairLost(
            "the repair is no longer this process's: it was silent for too long, or the repair was deleted"
        )
