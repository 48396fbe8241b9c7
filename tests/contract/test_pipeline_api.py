"""The contract of `/api/v1/pipelines`: what each endpoint takes, answers and refuses, over real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from api_app import Api
from pydantic import TypeAdapter

from control_plane.models.operation import Operation
from control_plane.models.pages import Page
from control_plane.models.pipeline import Pipeline
from control_plane.permissions import Role

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

PIPELINES = "/api/v1/pipelines"
SECRET = "mongodb://root:hunter2-planted@db.example:27017"

pages = TypeAdapter(Page[Pipeline])
operation_pages = TypeAdapter(Page[Operation])


def spec(name: str = "shop", **parts: Any) -> dict[str, Any]:
    source = {"connection": "env:SHOP_MONGODB", "database": "shop"} | parts.pop("source", {})
    return {"name": name, "source": source, **parts}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert body["request_id"]
    return body


async def made(client: httpx.AsyncClient, content: dict[str, Any] | None = None) -> httpx.Response:
    answer = await client.post(PIPELINES, json=content or spec())
    assert answer.status_code == 201, answer.text
    return answer


async def reached(api: Api, name: str = "shop") -> None:
    """Do as the controller does once a pipeline is what it is wanted to be."""
    await api.database.fetch(
        "INSERT INTO observations (pipeline, reached_version, observed_at) "
        "SELECT name, desired_version, now() FROM pipelines WHERE name = $1 "
        "ON CONFLICT (pipeline) DO UPDATE SET reached_version = excluded.reached_version, observed_at = now()",
        name,
    )


@pytest.fixture
async def api(shared_api: Api) -> Api:
    """The module's, without a pipeline and without a key in use."""
    await shared_api.database.execute("TRUNCATE pipelines, operations, idempotency_keys CASCADE")
    return shared_api


@pytest.fixture
async def operator(api: Api) -> httpx.AsyncClient:
    return await api.signed_in(Role.OPERATOR)


async def test_a_path_says_all_its_methods(operator: httpx.AsyncClient) -> None:
    for path, methods in ((PIPELINES, "GET, POST"), (f"{PIPELINES}/shop", "DELETE, GET, PUT")):
        answer = await operator.patch(path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == methods


# --- create, read, list -----------------------------------------------------------------------------------------------


async def test_a_pipeline_is_made_stopped_and_can_be_read(operator: httpx.AsyncClient) -> None:
    answer = await made(operator)
    assert answer.headers["location"] == f"{PIPELINES}/shop"
    pipeline = Pipeline.model_validate(answer.json())
    assert (pipeline.version, pipeline.status.state, pipeline.status.desired) == (1, "stopped", "stopped")
    assert pipeline.spec.source.database == "shop"
    assert "version" not in answer.json()["spec"]["quality"]
    read = await operator.get(answer.headers["location"])
    assert read.json() == answer.json()
    assert read.headers["etag"] == answer.headers["etag"]


async def test_a_name_is_taken_once(operator: httpx.AsyncClient) -> None:
    await made(operator)
    problem(await operator.post(PIPELINES, json=spec()), 409, "already_exists")


async def test_who_makes_the_same_pipeline_at_once_gets_it_once(operator: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(operator.post(PIPELINES, json=spec()) for _ in range(6)))
    assert sorted(each.status_code for each in answers) == [201, 409, 409, 409, 409, 409]


WRONG_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"source": {"connection": SECRET}}, "body.source.connection"),
    ({"name": "Shop!"}, "body.name"),
    ({"snapshot_filter": {}}, "body.snapshot_filter"),
    ({"sink": {"deletes": "soft"}}, "body.sink.deletes"),
    ({"sink": {"partition_by": ["day"]}}, "body.sink.partition_by"),
    ({"maintenance": {"schedule": "0 3 * * *"}}, "body.maintenance.schedule"),
    ({"desired": "stopped"}, "body.desired"),
    ({"quality": {"version": 3}}, "body"),
    ({"quality": {"validation": [{"rule": "regex", "path": "/a", "pattern": "("}]}}, "body"),
    ({"topic_partitions": 0}, "body.topic_partitions"),
    ({"topic_partitions": "3"}, "body.topic_partitions"),
    ({"sink": {"history": "yes"}}, "body.sink.history"),
    ({"sink": {"root": "s3://key:hunter2-planted@bucket/x"}}, "body.sink.root"),
]


async def test_a_wrong_spec_is_refused_by_its_field_and_never_quoted(operator: httpx.AsyncClient) -> None:
    for change, field in WRONG_SPECS:
        answer = await operator.post(PIPELINES, json=spec(**change))
        body = problem(answer, 422, "invalid_request")
        assert [each["field"] for each in body["errors"]] == [field]
        assert "hunter2" not in answer.text
        if "connection" in field:
            assert "write secret:<name> or env:<VARIABLE>" in body["errors"][0]["message"]


async def test_an_unknown_pipeline_is_404_everywhere(operator: httpx.AsyncClient) -> None:
    path = f"{PIPELINES}/none"
    problem(await operator.get(path), 404, "not_found")
    problem(await operator.put(path, json=spec("none"), headers={"If-Match": "*"}), 404, "not_found")
    problem(await operator.delete(path), 404, "not_found")
    problem(await operator.get(f"{path}/operations"), 404, "not_found")
    problem(await operator.get(f"{path}/operations/{uuid.uuid4()}"), 404, "not_found")
    for move in ("start", "pause", "resume", "stop", "restart", "resync", "reset"):
        problem(await operator.post(f"{path}/{move}"), 404, "not_found")


async def test_a_list_comes_in_pages_that_stay_right_while_pipelines_come_and_go(
    api: Api, operator: httpx.AsyncClient
) -> None:
    for name in ("a", "b", "c", "e"):
        await made(operator, spec(name))
    first = await operator.get(PIPELINES, params={"limit": 2})
    page = pages.validate_json(first.content)
    assert [each.name for each in page.items] == ["a", "b"]
    await made(operator, spec("d"))
    await made(operator, spec("aa"))
    await api.database.execute("DELETE FROM pipelines WHERE name = 'b'")
    rest = pages.validate_json((await operator.get(PIPELINES, params={"limit": 3, "cursor": page.next})).content)
    assert ([each.name for each in rest.items], rest.next) == (["c", "d", "e"], None)


async def test_a_list_can_be_filtered(api: Api, operator: httpx.AsyncClient) -> None:
    await made(operator, spec("shop-eu"))
    await made(operator, spec("shop-us"))
    await made(operator, spec("crm", source={"database": "crm"}))
    await operator.post(f"{PIPELINES}/shop-us/start")

    async def names(**params: str | int) -> list[str]:
        answer = await operator.get(PIPELINES, params=params)
        assert answer.status_code == 200, answer.text
        return [each["name"] for each in answer.json()["items"]]

    assert await names(text="shop") == ["shop-eu", "shop-us"]
    assert await names(database="crm") == ["crm"]
    assert await names(desired="running") == ["shop-us"]
    assert await names(state="starting") == ["shop-us"]
    assert await names(state="stopped", text="shop") == ["shop-eu"]
    assert await names(text="%") == []


async def test_a_made_up_cursor_is_refused(operator: httpx.AsyncClient) -> None:
    for cursor in ("", "x", "W10", "WzFd", "WyJhIiwiYiJd", "é" * 8, "=" * 1024):
        problem(await operator.get(PIPELINES, params={"cursor": cursor}), 422, "invalid_cursor")


async def test_a_number_too_large_for_the_database_is_refused(operator: httpx.AsyncClient) -> None:
    await made(operator)
    answer = await operator.get(f"{PIPELINES}/shop/operations", params={"cursor": "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDBd"})
    assert answer.status_code == 422, answer.text


# --- replace ----------------------------------------------------------------------------------------------------------


async def test_a_change_needs_the_etag_of_what_it_was_made_from(operator: httpx.AsyncClient) -> None:
    first = await made(operator)
    path = first.headers["location"]
    problem(await operator.put(path, json=spec(batch={"max_seconds": 1})), 428, "precondition_required")
    changed = await operator.put(path, json=spec(batch={"max_seconds": 1}), headers={"If-Match": first.headers["etag"]})
    assert changed.status_code == 200, changed.text
    assert changed.json()["version"] == 2
    assert changed.headers["etag"] != first.headers["etag"]
    stale = await operator.put(path, json=spec(), headers={"If-Match": first.headers["etag"]})
    problem(stale, 412, "precondition_failed")
    assert stale.headers["etag"] == changed.headers["etag"]


async def test_of_two_who_change_the_same_one_is_told(operator: httpx.AsyncClient) -> None:
    etag = (await made(operator)).headers["etag"]
    changes = [spec(batch={"max_seconds": seconds}) for seconds in range(3, 9)]
    answers = await asyncio.gather(
        *(operator.put(f"{PIPELINES}/shop", json=each, headers={"If-Match": etag}) for each in changes)
    )
    assert sorted(each.status_code for each in answers) == [200, 412, 412, 412, 412, 412]


async def test_the_same_spec_again_changes_nothing(operator: httpx.AsyncClient) -> None:
    first = await made(operator)
    read_back = first.json()["spec"]
    again = await operator.put(f"{PIPELINES}/shop", json=read_back, headers={"If-Match": first.headers["etag"]})
    assert again.json() == first.json()


async def test_a_pipeline_made_anew_is_another_one(api: Api, operator: httpx.AsyncClient) -> None:
    etag = (await made(operator)).headers["etag"]
    await api.database.execute("DELETE FROM pipelines")
    await made(operator)
    problem(
        await operator.put(f"{PIPELINES}/shop", json=spec(), headers={"If-Match": etag}), 412, "precondition_failed"
    )


async def test_a_pipeline_keeps_its_name(operator: httpx.AsyncClient) -> None:
    await made(operator)
    problem(
        await operator.put(f"{PIPELINES}/shop", json=spec("other"), headers={"If-Match": "*"}), 422, "invalid_request"
    )


async def test_what_tables_rest_on_is_fixed_from_the_first_start_on(operator: httpx.AsyncClient) -> None:
    await made(operator)
    any_version = {"If-Match": "*"}
    before = await operator.put(f"{PIPELINES}/shop", json=spec(source={"database": "shop2"}), headers=any_version)
    assert before.status_code == 200, before.text
    await operator.post(f"{PIPELINES}/shop/start")
    answer = await operator.put(f"{PIPELINES}/shop", json=spec(source={"database": "shop3"}), headers=any_version)
    assert problem(answer, 409, "fixed_field")["field"] == "source.database"


async def test_a_collection_added_later_is_resynced(operator: httpx.AsyncClient) -> None:
    await made(operator, spec(source={"include_collections": ["orders"]}))
    any_version = {"If-Match": "*"}
    wider = spec(source={"include_collections": ["orders", "items"]})
    unstarted = await operator.put(f"{PIPELINES}/shop", json=wider, headers=any_version)
    assert unstarted.json()["status"]["operations"] == []
    await operator.post(f"{PIPELINES}/shop/start")
    widest = spec(source={"include_collections": ["orders", "items", "carts", "users"]})
    changed = Pipeline.model_validate(
        (await operator.put(f"{PIPELINES}/shop", json=widest, headers=any_version)).json()
    )
    (operation,) = changed.status.operations
    assert (operation.kind, operation.arguments) == ("resync", {"collections": ["carts", "users"], "filter": None})
    assert "carts, users" in changed.notices[0]


# --- moves ------------------------------------------------------------------------------------------------------------


async def test_a_life(api: Api, operator: httpx.AsyncClient) -> None:
    await made(operator)

    async def move(name: str, desired: str) -> None:
        answer = await operator.post(f"{PIPELINES}/shop/{name}")
        assert answer.status_code == 202, answer.text
        assert Pipeline.model_validate(answer.json()).status.desired == desired
        await reached(api)

    for name, desired in (
        ("start", "running"),
        ("pause", "paused"),
        ("resume", "running"),
        ("stop", "stopped"),
        ("start", "running"),
        ("pause", "paused"),
        ("stop", "stopped"),
    ):
        await move(name, desired)
    deletion = await operator.delete(f"{PIPELINES}/shop", params={"keep_tables": False})
    assert deletion.status_code == 202
    operation = Operation.model_validate(deletion.json())
    assert operation.arguments == {"keep_tables": False, "keep_offsets": False, "force": False}
    assert (await operator.get(f"{PIPELINES}/shop")).json()["status"]["state"] == "deleting"
    assert (await operator.delete(f"{PIPELINES}/shop")).json() == deletion.json()
    await api.database.execute("DELETE FROM pipelines")
    problem(await operator.get(f"{PIPELINES}/shop"), 404, "not_found")
    followed = await operator.get(deletion.headers["location"])
    assert followed.json()["id"] == str(operation.id)


IMPOSSIBLE: list[tuple[list[str], list[str]]] = [
    ([], ["pause", "resume", "stop", "restart", "resync"]),
    (["start"], ["start", "resume", "reset"]),
    (["start", "pause"], ["pause", "start", "resync", "reset"]),
    (["start", "stop"], ["pause", "stop", "reset"]),
]


async def test_a_move_that_is_not_possible_names_the_state(operator: httpx.AsyncClient) -> None:
    for number, (history, moves) in enumerate(IMPOSSIBLE):
        path = (await made(operator, spec(f"p{number}"))).headers["location"]
        for each in history:
            assert (await operator.post(f"{path}/{each}")).status_code == 202
        state = (await operator.get(path)).json()["status"]["state"]
        for move in moves:
            body = problem(await operator.post(f"{path}/{move}"), 409, "invalid_transition")
            assert body["state"] == state, (history, move)
            assert state in body["detail"]


async def test_a_running_pipeline_is_deleted_only_by_force(operator: httpx.AsyncClient) -> None:
    await made(operator)
    await operator.post(f"{PIPELINES}/shop/start")
    assert "force" in problem(await operator.delete(f"{PIPELINES}/shop"), 409, "invalid_transition")["detail"]
    forced = await operator.delete(f"{PIPELINES}/shop", params={"force": True})
    assert forced.status_code == 202, forced.text
    problem(await operator.post(f"{PIPELINES}/shop/start"), 409, "invalid_transition")
    problem(await operator.put(f"{PIPELINES}/shop", json=spec(), headers={"If-Match": "*"}), 409, "invalid_transition")


OPEN_SINCE = {"status": "open", "at": {"$gt": {"$date": "2026-01-01T00:00:00Z"}}}
RESYNCS: list[dict[str, Any] | None] = [
    None,
    {},
    {"collections": ["orders"]},
    {"collections": ["orders"], "filter": OPEN_SINCE},
]
WRONG_RESYNCS: list[tuple[dict[str, Any], str]] = [
    ({"collections": ["orders"], "filter": {"$where": "sleep(1000)"}}, "invalid_filter"),
    ({"collections": ["orders"], "filter": {}}, "invalid_filter"),
    ({"filter": {"status": "open"}}, "invalid_request"),
    ({"collections": ["strange"]}, "not_captured"),
    ({"collection": ["orders"]}, "invalid_request"),
]


async def test_resyncs_as_they_are_asked_for(operator: httpx.AsyncClient) -> None:
    await made(operator, spec(source={"include_collections": ["orders", "items"]}))
    await operator.post(f"{PIPELINES}/shop/start")
    for wrong, code in WRONG_RESYNCS:
        problem(await operator.post(f"{PIPELINES}/shop/resync", json=wrong), 422, code)
    for body in RESYNCS:
        answer = await operator.post(f"{PIPELINES}/shop/resync", json=body)
        assert answer.status_code == 202, answer.text
        operation = Operation.model_validate(answer.json())
        assert (operation.state, operation.arguments["filter"]) == ("pending", (body or {}).get("filter"))
        assert (await operator.get(answer.headers["location"])).json() == answer.json()
    assert (await operator.get(f"{PIPELINES}/shop")).json()["status"]["state"] == "resyncing"


async def test_operations_are_listed_the_newest_first(operator: httpx.AsyncClient) -> None:
    await made(operator)
    await operator.post(f"{PIPELINES}/shop/start")
    bodies = [{"collections": [name]} for name in "abcde"]
    asked = [(await operator.post(f"{PIPELINES}/shop/resync", json=body)).json()["id"] for body in bodies]
    first = operation_pages.validate_json(
        (await operator.get(f"{PIPELINES}/shop/operations", params={"limit": 3})).content
    )
    rest = operation_pages.validate_json(
        (await operator.get(f"{PIPELINES}/shop/operations", params={"cursor": first.next})).content
    )
    assert [str(each.id) for each in first.items + rest.items] == asked[::-1]
    assert rest.next is None


async def test_a_reset_waits_for_the_stop_and_keeps_the_start_waiting(api: Api, operator: httpx.AsyncClient) -> None:
    await made(operator)
    for move in ("start", "stop"):
        await operator.post(f"{PIPELINES}/shop/{move}")
    await reached(api)
    answer = await operator.post(f"{PIPELINES}/shop/reset", json={"keep_tables": False})
    assert answer.status_code == 202, answer.text
    assert answer.json()["arguments"] == {"keep_tables": False}
    body = problem(await operator.post(f"{PIPELINES}/shop/start"), 409, "operation_in_progress")
    assert body["operation"] == answer.json()["id"]


# --- idempotency keys -------------------------------------------------------------------------------------------------


async def test_a_request_sent_again_under_its_key_is_done_once(operator: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "a-key"}
    first = await operator.post(PIPELINES, json=spec(), headers=key)
    again = await operator.post(PIPELINES, json=spec(), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    start = {"Idempotency-Key": "another"}
    started = [await operator.post(f"{PIPELINES}/shop/start", headers=start) for _ in range(2)]
    assert [each.status_code for each in started] == [202, 202]


async def test_a_key_is_for_one_request_of_one_caller(api: Api, operator: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "a-key"}
    await operator.post(PIPELINES, json=spec(), headers=key)
    problem(await operator.post(PIPELINES, json=spec("other"), headers=key), 422, "idempotency_key_reused")
    problem(await operator.post(f"{PIPELINES}/shop/start", headers=key), 422, "idempotency_key_reused")
    somebody = await api.signed_in(Role.OPERATOR)
    problem(await somebody.post(PIPELINES, json=spec(), headers=key), 409, "already_exists")


async def test_a_request_that_failed_may_be_sent_again_under_its_key(operator: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "a-key"}
    problem(await operator.post(f"{PIPELINES}/shop/start", headers=key), 404, "not_found")
    await made(operator)
    assert (await operator.post(f"{PIPELINES}/shop/start", headers=key)).status_code == 202


async def test_a_key_that_is_in_use_is_refused(operator: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(operator.post(PIPELINES, json=spec(), headers={"Idempotency-Key": "a-key"}) for _ in range(6))
    )
    told = sorted((each.status_code, each.json().get("code", "")) for each in answers)
    assert set(told) <= {(201, ""), (409, "idempotency_key_in_use")}, told
    fresh = [each for each in answers if each.status_code == 201 and "idempotency-replayed" not in each.headers]
    assert len(fresh) == 1


async def test_a_key_has_its_form(operator: httpx.AsyncClient) -> None:
    for key in ("", "with space", "x" * 256):
        answer = await operator.post(PIPELINES, json=spec(), headers={"Idempotency-Key": key})
        problem(answer, 422, "invalid_request")


# --- who may ----------------------------------------------------------------------------------------------------------

Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]

READS: list[Ask] = [
    lambda client: client.get(PIPELINES),
    lambda client: client.get(f"{PIPELINES}/shop"),
    lambda client: client.get(f"{PIPELINES}/shop/operations"),
]
WRITES: list[Ask] = [
    lambda client: client.post(PIPELINES, json={"wrong": "body"}),
    lambda client: client.put(f"{PIPELINES}/shop", json={"wrong": "body"}),
    lambda client: client.delete(f"{PIPELINES}/shop"),
    *(
        lambda client, move=move: client.post(f"{PIPELINES}/shop/{move}")
        for move in ("start", "pause", "resume", "stop", "restart", "resync", "reset")
    ),
]


async def test_who_is_not_signed_in_is_refused_before_the_body_is_read(api: Api) -> None:
    client = await api.anybody()
    for ask in READS + WRITES:
        problem(await ask(client), 401, "not_authenticated")


async def test_who_may_only_read_changes_nothing(api: Api, operator: httpx.AsyncClient) -> None:
    await made(operator)
    for role in (Role.ANALYST, Role.AUDITOR):
        client = await api.signed_in(role)
        for ask in READS:
            assert (await ask(client)).status_code == 200
        for ask in WRITES:
            problem(await ask(client), 403, "not_permitted")


async def test_who_is_limited_to_some_pipelines_sees_and_makes_no_others(api: Api, operator: httpx.AsyncClient) -> None:
    for name in ("shop", "crm"):
        await made(operator, spec(name))
    limited = await api.signed_in(Role.OPERATOR, pipelines=["crm", "billing"])
    assert [each["name"] for each in (await limited.get(PIPELINES)).json()["items"]] == ["crm"]
    problem(await limited.get(f"{PIPELINES}/shop"), 403, "out_of_scope")
    problem(await limited.post(PIPELINES, json=spec("new")), 403, "out_of_scope")
    await made(limited, spec("billing", source={"connection": "secret:billing"}))
