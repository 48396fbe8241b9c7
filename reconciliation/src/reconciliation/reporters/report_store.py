"""Where reports are kept: JSON, CSV and HTML in the lake, one capped JSON in Postgres.

The lake is written first, so that what Postgres points to is there. A lake that cannot be written costs the run
nothing: its report is then in Postgres alone, without a `lake_path`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec
import obstore

from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import (
    MULTIPART_CHUNK_BYTES,
    MULTIPART_CONCURRENCY,
    open_store,
    store_errors,
)
from cdc_shared.storage.report_files import CONTENT_TYPES, ReportFormat, report_url
from reconciliation.reporters.report import Report
from reconciliation.reporters.report_generator import csv_pieces, json_pieces, stored_report
from reconciliation.reporters.report_html import html_page

_MEBIBYTE: Final = 1024 * 1024


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
        msgspec.json.encode(stored_report(report)).decode(),
        lake_path,
    )


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
