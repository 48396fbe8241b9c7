"""The audit trail as a file: CSV for spreadsheets, JSON lines for programs; streamed, so that size does not matter."""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from typing import Final

from control_plane.database import Database
from control_plane.models.audit import AuditLog
from control_plane.models.audit_chain import ChainedEntry
from control_plane.repositories import audit_repo
from control_plane.repositories.audit_repo import AuditFilter

CHUNK_ENTRIES: Final = 1_000
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def log_of(chained: ChainedEntry) -> AuditLog:
    """An entry as the API tells it."""
    entry = chained.entry
    return AuditLog(
        id=chained.id,
        at=entry.at,
        user_id=entry.user_id,
        user=entry.user,
        roles=list(entry.roles),
        action=entry.action,
        resource=entry.resource,
        outcome=entry.outcome,
        status=entry.status,
        code=entry.code,
        request_id=entry.request_id,
        address=entry.address,
        duration_ms=entry.duration_ms,
        hash=chained.hash.hex(),
    )


async def export(database: Database, wanted: AuditFilter, through: int, fmt: str) -> AsyncIterator[bytes]:
    """The entries that match, oldest first, up to this place. A slow reader holds no connection.

    The first part comes after the first look at the database: what it refuses, it refuses before that.
    """
    part = _csv_line(AuditLog.model_fields) if fmt == "csv" else b""
    after = 0
    while True:
        async with database.connection() as connection:
            chunk = await audit_repo.between(connection, wanted, after, through, CHUNK_ENTRIES)
        lines = (_csv_line(_cells(each)) if fmt == "csv" else _json_line(each) for each in map(log_of, chunk))
        yield part + b"".join(lines)
        if len(chunk) < CHUNK_ENTRIES:
            return
        part, after = b"", chunk[-1].id


async def begun(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same parts, the first of which is there: raises what fails before it, while there is a status to answer."""
    first = await anext(parts, b"")

    async def all_parts() -> AsyncIterator[bytes]:
        yield first
        async for each in parts:
            yield each

    return all_parts()


def _json_line(log: AuditLog) -> bytes:
    return log.model_dump_json().encode() + b"\n"


def _cells(log: AuditLog) -> Iterable[str]:
    for value in log.model_dump(mode="json").values():
        if isinstance(value, list):
            yield " ".join(value)
        elif isinstance(value, str) and value.startswith(_FORMULA_STARTS):
            yield f"'{value}"  # a spreadsheet would run it: some texts come from whoever called
        else:
            yield "" if value is None else str(value)


def _csv_line(cells: Iterable[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
