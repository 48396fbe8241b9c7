"""What runs found, in Postgres: their numbers, each difference, the report, and what is verified of the collection."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final
from uuid import UUID

import msgspec

from cdc_shared.models.reconciliation import JobState
from cdc_shared.security.data_key import DataKeys
from reconciliation.database import Connection, Database
from reconciliation.reconciler.difference import Difference
from reconciliation.reconciler.result import RunResult, TopicPositions, Verified
from reconciliation.reconciler.sealed_keys import open_key, seal_key
from reconciliation.reporters.report import Report
from reconciliation.reporters.report_store import save_report
from reconciliation.scheduler.job import Job, Run
from reconciliation.scheduler.job_store import hold
from reconciliation.storable_text import storable, storable_value

ROWS_AT_ONCE: Final = 2_000


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report; `lake_path` None: its files could not be written to the lake."""

    report: Report
    lake_path: str | None


class ResultStore:
    """`keys` seal the key texts of `_id`s."""

    def __init__(self, database: Database, keys: DataKeys) -> None:
        self._database = database
        self._keys = keys

    async def verified(self, pipeline: str, database: str, collection: str) -> Verified | None:
        """What the last run that was `equal` left for mode incremental."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT positions, rotation FROM reconciliation_verifications "
                "WHERE pipeline = $1 AND database = $2 AND collection = $3 AND positions IS NOT NULL",
                pipeline,
                database,
                collection,
            )
        if row is None:
            return None
        kept = row["positions"]
        offsets = {int(partition): int(offset) for partition, offset in kept["offsets"].items()}
        return Verified(TopicPositions(kept["topic_id"], offsets), kept.get("rows", ""), row["rotation"])

    async def repaired_keys(self, repair: UUID, database: str, collection: str) -> list[str]:
        """The key texts of the `_id`s that a repair asked for in this collection. Raises `Fatal` when a key is gone."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT p.pipeline, d.run_id, d.number, d.source_key FROM reconciliation_repairs p "
                "JOIN reconciliation_runs r ON r.job_id = p.job_id "
                "JOIN reconciliation_differences d ON d.run_id = r.id AND d.kind = ANY(p.kinds) "
                "WHERE p.id = $1 AND r.database = $2 AND r.collection = $3 AND d.source_key IS NOT NULL "
                "ORDER BY d.number",
                repair,
                database,
                collection,
            )

        def opened() -> list[str]:
            return [
                open_key(row["source_key"], self._keys, row["pipeline"], str(row["run_id"]), row["number"])
                for row in rows
            ]

        # Decrypted aside: a million of them would keep the event loop from the heartbeats.
        return await asyncio.to_thread(opened)

    async def keep(self, job: Job, run: Run, result: RunResult, report: WrittenReport, at: datetime) -> None:
        """Store a run that came to its end; it is `completed` once all of it is stored.

        Differences come first, in transactions of their own: in one that takes minutes the job's heartbeat would wait.
        Raises `ClaimLost`, `Transient`.
        """
        await self._keep_differences(job, run, result.differences)
        async with self._database.transaction() as connection:
            await hold(connection, job.claim)
            await connection.execute(
                "UPDATE reconciliation_runs SET state = $2, outcome = $3, summary = $4, finished_at = $5, "
                "error = NULL, progress = '{}' WHERE id = $1",
                run.id,
                JobState.COMPLETED,
                result.outcome,
                _plain({**_plain(result.summary), "verified_through": result.verified_through}),
                at,
            )
            await save_report(connection, report.report, report.lake_path)
            # A repair's verification has compared the repaired keys alone: it says nothing of the collection.
            # A job to be cancelled may be of tables that are gone: those made anew must not inherit its verdict.
            if job.repair_id is None and not await _is_to_end(connection, job):
                await _keep_verdict(connection, job.pipeline, run, result, at)

    async def _keep_differences(self, job: Job, run: Run, differences: Sequence[Difference]) -> None:
        async with self._database.transaction() as connection:
            await hold(connection, job.claim)
            await connection.execute("DELETE FROM reconciliation_differences WHERE run_id = $1", run.id)
        rows = self._rows(job.pipeline, run, differences)
        # Encoded and encrypted aside: the event loop has heartbeats to send.
        while batch := await asyncio.to_thread(list, islice(rows, ROWS_AT_ONCE)):
            async with self._database.transaction() as connection:
                await hold(connection, job.claim)
                await connection.executemany(
                    "INSERT INTO reconciliation_differences (run_id, number, kind, key, source_key, details) "
                    "VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)",
                    batch,
                )

    def _rows(self, pipeline: str, run: Run, differences: Sequence[Difference]) -> Iterator[tuple[Any, ...]]:
        for number, each in enumerate(differences, 1):
            source_key = each.source_key
            sealed = None if source_key is None else seal_key(source_key, self._keys, pipeline, str(run.id), number)
            details = {
                "explanation": each.explanation,
                "fields": [{"pointer": field.pointer, "how": field.how.value} for field in each.fields],
                "document": each.document,
                "row": each.row,
                "rows": each.rows,
                "rules_version": each.rules_version,
            }
            text = msgspec.json.encode(storable_value(details)).decode()
            yield run.id, number, each.kind.value, storable(each.key), sealed, text


async def _is_to_end(connection: Connection, job: Job) -> bool:
    wanted = await connection.fetchval("SELECT wanted FROM reconciliation_jobs WHERE id = $1", job.id)
    return bool(wanted == "cancel")


async def _keep_verdict(connection: Connection, pipeline: str, run: Run, result: RunResult, at: datetime) -> None:
    """A run that was paused while a later one was `equal` says something of an older version: the later word stands."""
    verified = result.verified
    positions = {**_plain(verified.positions), "rows": verified.rows} if verified else None
    await connection.execute(
        """
        INSERT INTO reconciliation_verifications AS v (pipeline, database, collection, verified_through, positions,
            rotation, last_run_id, last_outcome, differences, checked_at)
        VALUES ($1, $2, $3, $4, $5, coalesce($6, 0), $7, $8, $9, $10)
        ON CONFLICT (pipeline, database, collection) DO UPDATE SET
            verified_through = greatest(EXCLUDED.verified_through, v.verified_through),
            positions = CASE WHEN EXCLUDED.verified_through < v.verified_through THEN v.positions
                ELSE coalesce(EXCLUDED.positions, v.positions) END,
            rotation = CASE WHEN EXCLUDED.verified_through < v.verified_through THEN v.rotation
                ELSE coalesce($6, v.rotation) END,
            last_run_id = EXCLUDED.last_run_id, last_outcome = EXCLUDED.last_outcome,
            differences = EXCLUDED.differences, checked_at = EXCLUDED.checked_at
        """,
        pipeline,
        run.database,
        run.collection,
        result.verified_through,
        positions,
        verified.rotation if verified else None,
        run.id,
        result.outcome,
        {kind.value: count for kind, count in result.summary.differences.items() if count},
        at,
    )


def _plain(value: Any) -> Any:
    return storable_value(msgspec.to_builtins(value, str_keys=True))
