"""Where reports are kept: JSON, CSV and HTML in the lake, one capped JSON in Postgres; and for how long.

The lake is written first, so that what Postgres points to is there. A lake that cannot be written costs the run
nothing: its report is then in Postgres alone, without a `lake_path`.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
import obstore

from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import (
    MULTIPART_CHUNK_BYTES,
    MULTIPART_CONCURRENCY,
    open_store,
    store_errors,
)
from cdc_shared.storage.report_files import CONTENT_TYPES, ReportFormat, report_url, reports_directory
from reconciliation.reporters.report import Report
from reconciliation.reporters.report_generator import csv_pieces, json_pieces, stored_report
from reconciliation.reporters.report_html import html_page

RETENTION_DAYS: Final = 90
_MEBIBYTE: Final = 1024 * 1024
EXPIRED_RUNS: Final = 200
"""So many runs lose their differences in one statement: they may be millions of rows."""

log = get_logger(__name__)


class Connection(Protocol):
    """What is used of an asyncpg connection or pool."""

    async def execute(self, query: str, *args: Any) -> str: ...


def write_to_lake(report: Report, root: str, stores: ObjectStoreSettings) -> str:
    """Write the three files, again if need be; return their URL without an ending. Blocks: not for an event loop.

    `root` is where the pipeline's tables are. Raises `Transient` or `Fatal`; files that were written stay, and a second
    attempt replaces them.
    """
    run = report.run
    url = report_url(root, run.pipeline, run.collection, run.run_id)
    directory, _, name = url.rpartition("/")
    store = open_store(directory, stores)
    forms: dict[ReportFormat, Callable[[], Iterator[bytes]]] = {
        "json": lambda: json_pieces(report),
        "csv": lambda: csv_pieces(report),
        "html": lambda: iter([html_page(report).encode()]),
    }
    for form, pieces in forms.items():
        with store_errors(f"write {url}.{form}"):
            obstore.put(
                store,
                f"{name}.{form}",
                _in_megabytes(pieces()),
                attributes={"Content-Type": CONTENT_TYPES[form]} if not _is_local(directory) else None,
                chunk_size=MULTIPART_CHUNK_BYTES,
                max_concurrency=MULTIPART_CONCURRENCY,
            )
    return url


async def save_report(connection: Connection, report: Report, lake_path: str | None) -> None:
    """Put the report into `reconciliation_reports`, in place of an earlier one of the run."""
    await connection.execute(
        """
        INSERT INTO reconciliation_reports (run_id, report, lake_path) VALUES ($1::uuid, $2::text::jsonb, $3)
        ON CONFLICT (run_id) DO UPDATE
        SET report = EXCLUDED.report, lake_path = EXCLUDED.lake_path, created_at = now()
        """,
        report.run.run_id,
        msgspec.json.encode(without_nul(stored_report(report))).decode(),
        lake_path,
    )


def expire_in_lake(
    root: str,
    pipeline: str,
    stores: ObjectStoreSettings,
    retention: timedelta,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Delete the pipeline's reports that are older; how many files. Blocks. Raises `Transient` or `Fatal`."""
    directory = reports_directory(root, pipeline)
    store = open_store(directory, stores)
    deleted = 0
    with store_errors(f"clean up {directory}"):
        for page in obstore.list(store):
            old = [found["path"] for found in page if found["last_modified"] < now() - retention]
            if old:
                obstore.delete(store, old)
            deleted += len(old)
    return deleted


async def expire_in_postgres(connection: Connection, retention: timedelta) -> int:
    """Delete differences and reports of runs that ended longer ago, some runs at a time; how many runs had any.

    Jobs, runs and their numbers stay. A run whose repair is still to be decided or under way keeps its differences.
    """
    expired = 0
    while True:
        tag = await connection.execute(_EXPIRE, retention, EXPIRED_RUNS)
        count = int(tag.rpartition(" ")[2])
        expired += count
        if count < EXPIRED_RUNS:
            return expired


def without_nul(value: Any) -> Any:
    """Return a JSON value with U+0000 written out in its texts: Postgres' jsonb refuses it, BSON's strings have it."""
    if isinstance(value, str):
        return value.replace("\x00", "\\u0000")
    if isinstance(value, dict):
        return {without_nul(name): without_nul(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_nul(each) for each in value]
    return value


_EXPIRE: Final = """
WITH old AS (
    SELECT run.id FROM reconciliation_runs run
    WHERE run.finished_at < now() - $1::interval
      AND (EXISTS (SELECT FROM reconciliation_reports WHERE run_id = run.id)
           OR EXISTS (SELECT FROM reconciliation_differences WHERE run_id = run.id))
      AND NOT EXISTS (
          SELECT FROM reconciliation_repairs repair
          WHERE repair.job_id = run.job_id AND repair.finished_at IS NULL)
    ORDER BY run.finished_at LIMIT $2
), differences AS (
    DELETE FROM reconciliation_differences WHERE run_id IN (SELECT id FROM old)
), reports AS (
    DELETE FROM reconciliation_reports WHERE run_id IN (SELECT id FROM old)
)
SELECT id FROM old
"""


def _in_megabytes(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _MEBIBYTE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")
