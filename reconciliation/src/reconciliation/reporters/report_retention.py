"""Reports and differences, which show documents, go after a while. The numbers of jobs and runs stay."""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

from cdc_shared.errors import CdcError
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.report_files import delete_report
from reconciliation.database import Database

RUNS_AT_ONCE: Final = 20
"""A run may have millions of differences: this many runs lose theirs in one statement."""

log = get_logger(__name__)

# The newest run of each collection stays: it is what "verified through" rests on. So does one whose repair is to be
# decided or under way: its differences say what to repair.
_OLD: Final = """
SELECT run.id, report.lake_path
FROM reconciliation_runs run LEFT JOIN reconciliation_reports report ON report.run_id = run.id
WHERE run.finished_at < now() - $1::interval
  AND (report.run_id IS NOT NULL OR EXISTS (SELECT FROM reconciliation_differences WHERE run_id = run.id))
  AND NOT EXISTS (SELECT FROM reconciliation_verifications WHERE last_run_id = run.id)
  AND NOT EXISTS (
      SELECT FROM reconciliation_repairs repair WHERE repair.job_id = run.job_id AND repair.finished_at IS NULL)
  AND run.id <> ALL($2::uuid[])
ORDER BY run.finished_at LIMIT $3
"""


async def expire_reports(database: Database, stores: ObjectStoreSettings, retention: timedelta) -> int:
    """Delete reports, in the lake and in Postgres, and differences of runs that ended longer ago; of how many runs.

    Of a report that the lake does not let go of, the rest stays as well and is tried the next time. Raises `Transient`.
    """
    expired = 0
    left: list[UUID] = []
    while True:
        async with database.connection() as connection:
            found = await connection.fetch(_OLD, retention, left, RUNS_AT_ONCE)
        gone = []
        for row in found:
            try:
                if row["lake_path"] is not None:
                    await asyncio.to_thread(delete_report, row["lake_path"], stores)
            except CdcError as error:
                log.warning("an old report could not be deleted", run=str(row["id"]), reason=str(error))
                left.append(row["id"])
            else:
                gone.append(row["id"])
        async with database.transaction() as connection:
            await connection.execute("DELETE FROM reconciliation_differences WHERE run_id = ANY($1::uuid[])", gone)
            await connection.execute("DELETE FROM reconciliation_reports WHERE run_id = ANY($1::uuid[])", gone)
        expired += len(gone)
        if len(found) < RUNS_AT_ONCE:
            return expired
