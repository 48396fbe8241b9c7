"""SQL through the API: who may, what they see, what they are told, and what a question may take; on real tables."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pytest
from api_app import Api, open_api, settings_for
from api_database import TrialDatabase
from api_process import ADMIN, PASSWORD, ApiProcess
from mongo_pipeline import MongoPipeline
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.analytics.bounded_answer import TABLES_METADATA
from control_plane.client.control_plane import ControlPlane
from control_plane.client.errors import ApiError, NotFound
from control_plane.client.session import Password
from control_plane.permissions import Permission, Role
from control_plane.services.lake_queries import PROGRAM
from control_plane.settings import QuerySettings

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.timeout(180)]

QUERY = "/api/v1/query"
ENDLESS = "SELECT count(*) FROM range(1_000_000_000_000) a WHERE hash(range) = 3"
AWAY_TIMEOUT_S = 10.0
BUSY_PERCENT = 50


@pytest.fixture
def query_api(
    stack: Stack, tests_root: str, database: TrialDatabase, tmp_path: Path
) -> Callable[..., AsyncIterator[Api]]:
    """Opens the control plane for the tables of these tests, with limits of `QuerySettings`."""

    @asynccontextmanager
    async def opened(**limits: Any) -> AsyncIterator[Api]:
        settings = settings_for(stack, database, tmp_path / uuid.uuid4().hex)
        stores = settings.stores.model_copy(update={"delta_root": tests_root})
        async with open_api(
            replace(settings, stores=stores, queries=QuerySettings(**({"memory_mb": 256, "threads": 1} | limits))),
            database,
        ) as api:
            yield api

    return opened  # type: ignore[return-value]


def fill(pipeline: MongoPipeline) -> str:
    """Three orders and their table's name in SQL."""
    pipeline.db["orders"].insert_many([{"_id": n, "total": n / 4, "status": "new"} for n in range(3)])
    pipeline.await_equal("orders")
    return f'"{pipeline.name}"."{pipeline.database}".orders'


async def ask(client: httpx.AsyncClient, sql: str, **options: Any) -> httpx.Response:
    return await client.post(QUERY, json={"sql": sql, **options}, timeout=60)


async def test_an_analyst_asks_and_it_is_audited(pipeline: MongoPipeline, query_api: Any) -> None:
    orders = fill(pipeline)
    async with query_api() as api:
        analyst = await api.signed_in(Role.ANALYST, name="anna")
        sql = f"SELECT _id, total FROM {orders} WHERE status = 'new' ORDER BY _id DESC"

        answer = await ask(analyst, sql, max_rows=2)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        [(name, version)] = told["tables"].items()
        assert told == {
            "columns": [{"name": "_id", "type": "int64"}, {"name": "total", "type": "double"}],
            "rows": [[2, 0.5], [1, 0.25]],
            "row_count": 2,
            "truncated": True,
            "tables": {name: version},
        }
        assert (answer.headers["x-row-count"], answer.headers["x-truncated"]) == ("2", "true")

        arrow = await ask(analyst, sql, format="arrow", as_of=version)
        assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
        table = pa.ipc.open_stream(arrow.content).read_all()
        assert table.to_pydict() == {"_id": [2, 1, 0], "total": [0.5, 0.25, 0.0]}
        assert TABLES_METADATA in table.schema.metadata

        auditor = await api.signed_in(Role.AUDITOR)
        entries = (await auditor.get("/api/v1/audit", params={"action": "tables.query"})).json()["items"]
        assert [(each["user"], each["resource"], each["status"]) for each in entries] == [
            ("anna", f"{name}@{version}", 200)
        ] * 2


async def test_who_may_not_ask_is_refused_and_who_is_limited_sees_no_other_pipeline(
    pipeline: MongoPipeline, query_api: Any
) -> None:
    orders = fill(pipeline)
    sql = f"SELECT count(*) FROM {orders}"
    async with query_api() as api:
        allowed = [
            await api.admin(),
            await api.signed_in(Role.OPERATOR),
            await api.signed_in(Role.ANALYST, pipelines=[pipeline.name]),
            await api.machine(Permission.TABLES_QUERY, pipelines=[pipeline.name]),
        ]
        for client in allowed:
            answer = await ask(client, sql)
            assert (answer.status_code, answer.json().get("rows")) == (200, [[3]]), answer.text

        assert (await ask(await api.anybody(), sql)).status_code == 401
        for client in (await api.signed_in(Role.AUDITOR), await api.machine(Permission.PIPELINES_READ)):
            assert (await ask(client, sql)).status_code == 403
        for other in (
            await api.signed_in(Role.ANALYST, pipelines=["another"]),
            await api.machine(Permission.TABLES_QUERY, pipelines=["another"]),
        ):
            refused = await ask(other, sql)
            assert (refused.status_code, refused.json()["code"]) == (404, "no_such_table")
            assert "There is no table yet" in refused.json()["detail"]


async def test_what_cannot_be_answered_is_told(pipeline: MongoPipeline, query_api: Any) -> None:
    orders = fill(pipeline)
    async with query_api(timeout_s=2, max_answer_mb=1, max_rows=100_000) as api:
        analyst = await api.signed_in(Role.ANALYST, pipelines=[pipeline.name])
        expected = [
            (f"FROM {orders}_", {}, 404, "no_such_table"),
            (f"FROM {orders}", {"as_of": 10_000}, 422, "no_such_version"),
            (f"FROM {orders}", {"as_of": "2020-01-01T00:00:00Z"}, 422, "no_such_moment"),
            (f"FROM {orders}", {"as_of": "yesterday"}, 422, "invalid_request"),
            (f"DELETE FROM {orders}", {}, 422, "statement_not_allowed"),
            ("FROM read_text('/etc/hostname')", {}, 422, "statement_not_allowed"),
            (f"SELECT nothing FROM {orders}", {}, 422, "invalid_query"),
            ("SELECT * FROM", {}, 422, "invalid_query"),
            (ENDLESS, {}, 422, "query_timeout"),
            ("SELECT list(repeat('x', 1000) || range) FROM range(2_000_000)", {}, 422, "query_too_large"),
            ("SELECT repeat('x', 100) FROM range(100_000)", {"max_rows": 100_000}, 422, "query_too_large"),
        ]
        for sql, options, status, code in expected:
            answer = await ask(analyst, sql, **options)
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        beyond = await ask(analyst, "FROM range(500_000)", max_rows=10**6, format="arrow")
        assert beyond.status_code == 200, beyond.text
        assert (beyond.headers["x-row-count"], beyond.headers["x-truncated"]) == ("100000", "true")
        assert (await ask(analyst, f"SELECT count(*) FROM {orders}")).json()["rows"] == [[3]]


async def test_whoever_comes_while_all_places_are_taken_waits_or_is_told(query_api: Any) -> None:
    async with query_api(timeout_s=3, at_once=1) as api:
        analyst = await api.signed_in(Role.ANALYST)
        slow = asyncio.create_task(ask(analyst, ENDLESS))
        answers = await asyncio.gather(*(ask(analyst, "SELECT 1") for _ in range(3)), slow)
        assert [each.status_code for each in answers] == [200, 200, 200, 422]
    async with query_api(timeout_s=25, at_once=1) as api:
        analyst = await api.signed_in(Role.ANALYST)
        slow = asyncio.create_task(ask(analyst, ENDLESS))
        await asyncio.sleep(0)
        refused = await ask(analyst, "SELECT 1")
        assert (refused.status_code, refused.json()["code"]) == (503, "queries_busy")
        assert refused.headers["retry-after"]
        slow.cancel()


def running_queries(process: ApiProcess) -> list[psutil.Process]:
    """Processes of queries that use the processor; a spare one waits."""
    running = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if PROGRAM in child.cmdline() and child.cpu_percent(0.2) > BUSY_PERCENT:
                running.append(child)
    return running


def test_a_query_ends_with_its_caller_and_its_process_may_die(
    stack: Stack, tests_root: str, database: TrialDatabase, tmp_path: Path, pipeline: MongoPipeline
) -> None:
    orders = fill(pipeline)
    environment = {"DELTA_ROOT": tests_root, "API_QUERY_THREADS": "1"}
    process = ApiProcess(stack, database, tmp_path, environment)
    try:
        with ControlPlane.open(process.url, Password(ADMIN, PASSWORD)) as api:
            table = api.tables.query(f"SELECT _id FROM {orders} ORDER BY _id", max_rows=2)
            assert table.to_pydict() == {"_id": [0, 1]}
            assert table.schema.metadata[b"cdc.truncated"] == b"true"
            with pytest.raises(NotFound, match="There are: "):
                api.tables.query("FROM a.b.c")

            headers = {"Authorization": f"Bearer {process.sign_in()['access_token']}"}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(process.url + QUERY, json={"sql": ENDLESS}, headers=headers, timeout=2, trust_env=False)
            wait_until(lambda: not running_queries(process), AWAY_TIMEOUT_S, "the query to end with its caller")

            told: list[str] = []

            def endless() -> None:
                try:
                    api.tables.query(ENDLESS)
                except ApiError as error:
                    told.append(error.code)

            asking = threading.Thread(target=endless)
            asking.start()
            [running] = wait_until(lambda: running_queries(process), AWAY_TIMEOUT_S, "the query runs")
            running.kill()
            asking.join(AWAY_TIMEOUT_S)
            assert told == ["query_too_large"]
            assert api.tables.query(f"SELECT count(*) AS n FROM {orders}").to_pydict() == {"n": [3]}

            children = psutil.Process(process.pid).children()
            process.stop()
            assert not psutil.wait_procs(children, AWAY_TIMEOUT_S)[1], "left behind"
    finally:
        process.kill()
