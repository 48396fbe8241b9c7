"""The audit trail as a file: every entry once, in order, safe to open in a spreadsheet."""

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from control_plane.database import Database
from control_plane.models.audit import AuditLog
from control_plane.repositories.audit_repo import AuditFilter
from control_plane.services.audit_export import CHUNK_ENTRIES, export

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


def row(place: int, **values: Any) -> dict[str, Any]:
    return {
        "id": place,
        "at": AT + timedelta(seconds=place),
        "user_id": UUID(int=7),
        "user_name": "ada",
        "roles": ["admin", "auditor"],
        "action": "pipeline.read",
        "resource": "shop",
        "outcome": "allowed",
        "status": 200,
        "code": None,
        "request_id": f"r-{place}",
        "address": "10.0.0.7",
        "duration_us": 1500,
        "hash": bytes([place % 256]) * 32,
    } | values


class FakeDatabase:
    """Answers the one query of an export: entries behind a place, as many as are asked for."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self.lent = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["FakeDatabase"]:
        self.lent += 1
        yield self
        self.lent -= 1

    async def fetch(self, query: str, after: int, through: int) -> list[dict[str, Any]]:
        limit = int(query.rsplit(" ", 1)[1])
        return [each for each in self._rows if after < each["id"] <= through][:limit]


async def exported(rows: list[dict[str, Any]], fmt: str, through: int) -> str:
    database = FakeDatabase(rows)
    parts = []
    async for part in export(cast(Database, database), AuditFilter(), through, fmt):
        assert database.lent == 0, "a reader that is slow now would hold a connection"
        parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("count", [0, 1, CHUNK_ENTRIES, 2 * CHUNK_ENTRIES + 1])
@pytest.mark.parametrize("fmt", ["csv", "jsonl"])
async def test_every_entry_is_there_once_in_order(fmt: str, count: int) -> None:
    text = await exported([row(n) for n in range(1, count + 3)], fmt, through=count)

    lines = list(csv.DictReader(io.StringIO(text))) if fmt == "csv" else [json.loads(x) for x in text.splitlines()]
    assert [int(line["id"]) for line in lines] == list(range(1, count + 1))


async def test_json_lines_are_what_the_list_shows() -> None:
    text = await exported([row(1)], "jsonl", through=1)

    told = AuditLog.model_validate_json(text)
    assert (told.at, told.user, told.roles, told.duration_ms) == (
        AT + timedelta(seconds=1),
        "ada",
        ["admin", "auditor"],
        1.5,
    )
    assert told.hash == "01" * 32


async def test_csv_has_a_header_and_one_cell_a_field() -> None:
    (line,) = csv.DictReader(io.StringIO(await exported([row(1)], "csv", through=1)))

    assert line.keys() == AuditLog.model_fields.keys()
    assert (line["at"], line["roles"], line["code"]) == ("2026-03-01T12:30:16.123456Z", "admin auditor", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
async def test_a_spreadsheet_runs_nothing_that_a_caller_wrote(text: str) -> None:
    (line,) = csv.DictReader(io.StringIO(await exported([row(1, user_name=text)], "csv", through=1)))

    assert line["user"] == f"'{text}"
