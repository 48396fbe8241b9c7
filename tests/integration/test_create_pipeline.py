"""A pipeline that is made through the API comes to be in Kafka Connect and in the spec topic, and goes again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_app import Api, open_api, settings_for
from api_database import TrialDatabase
from confluent_kafka.admin import AdminClient
from stack_endpoints import Stack
from trial_pipeline import trial_name

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.kafka.spec_topic import UnknownPipeline, read_spec
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import EncryptedFileProvider
from control_plane.permissions import Role
from control_plane.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

PIPELINES = "/api/v1/pipelines"
PLANTED = "planted-3d1f7a"
WITHIN_S = 60.0
POLL_S = 0.2


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return trial_name(request.node.name)


@pytest.fixture
async def settings(stack: Stack, database: TrialDatabase, tmp_path: Path, name: str) -> AsyncIterator[Settings]:
    """With a spec topic of the test's own, so that the stack's writer leaves its pipeline alone; and a secret."""
    made = settings_for(stack, database, tmp_path)
    topic = f"cdc.pipelines.{name}"
    made = dataclasses.replace(made, kafka=made.kafka.model_copy(update={"pipelines_topic": topic}))
    assert made.secrets.file is not None
    assert made.secrets.key is not None
    separator = "&" if "?" in stack.mongodb_uri else "?"
    key = crypto.decode_key(made.secrets.key.get_secret_value(), "the test's key")
    EncryptedFileProvider(made.secrets.file, key).put("source", f"{stack.mongodb_uri}{separator}appName={PLANTED}")
    yield made
    with ConnectClient(stack.connect_url) as connect:
        connect.delete(name)
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    topics = [each for each in admin.list_topics(timeout=10).topics if name in each]
    for future in admin.delete_topics(topics).values():
        future.result()


async def until(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """What `look` finds once it finds something."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(POLL_S)
    raise AssertionError(what)


async def test_a_pipeline_made_through_the_api_comes_to_be_in_kafka_connect_and_goes_again(
    stack: Stack, database: TrialDatabase, settings: Settings, name: str
) -> None:
    controlling = dataclasses.replace(settings, api=settings.api.model_copy(update={"controller": True}))
    seen: list[httpx.Response] = []

    async with open_api(settings, database) as api, open_api(controlling, database):
        client = await api.signed_in(Role.OPERATOR)

        async def ask(method: str, path: str, **options: Any) -> Any:
            seen.append(await client.request(method, f"{PIPELINES}{path}", **options))
            assert seen[-1].is_success, seen[-1].text
            return seen[-1].json()

        spec = {
            "name": name,
            "source": {"connection": "secret:source", "database": name, "include_collections": ["orders"]},
        }
        await ask("POST", "", json=spec)
        with ConnectClient(stack.connect_url) as connect:
            assert await asyncio.to_thread(connect.status, name) is None, "made is not started"
            await ask("POST", f"/{name}/start")

            async def runs() -> bool:
                status = await asyncio.to_thread(connect.status, name)
                return status is not None and status.running

            await until("the connector runs", runs)
            config = (await asyncio.to_thread(connect.connectors))[name].config
            assert PLANTED not in json.dumps(dict(config))
            assert config["mongodb.connection.string"].startswith("${")
            assert config["topic.prefix"] == name
            published = read_spec(stack.kafka, name, settings.kafka.pipelines_topic)
            assert (published.desired, published.source.include_collections) == ("running", ("orders",))

            async def tells_so() -> Any:
                pipeline = await ask("GET", f"/{name}")
                conditions = {each["kind"]: each for each in pipeline["status"]["conditions"]}
                is_seen = conditions.get("ConnectorRunning", {}).get("status") == "true"
                return (pipeline, conditions) if is_seen else None

            pipeline, conditions = await until("the API tells so", tells_so)
            assert conditions["SpecPublished"]["status"] == "true"
            # Nobody applies the changes: the connector's RUNNING alone is not "running".
            assert (pipeline["status"]["state"], conditions["WriterRunning"]["reason"]) == ("starting", "Absent")

            operation = await ask("DELETE", f"/{name}", params={"force": True, "keep_tables": False})

            async def is_deleted() -> bool:
                now = await ask("GET", f"/{name}/operations/{operation['id']}")
                assert now["state"] in ("pending", "running", "succeeded"), now
                return bool(now["state"] == "succeeded")

            await until("the pipeline is deleted", is_deleted)
            assert await asyncio.to_thread(connect.status, name) is None
        with pytest.raises(UnknownPipeline):
            read_spec(stack.kafka, name, settings.kafka.pipelines_topic)
        assert (await client.get(f"{PIPELINES}/{name}")).status_code == 404
        assert not list(stack.connect_secrets_dir.glob(f"{name}.*"))
        await nothing_holds_the_secret(api, seen)


async def nothing_holds_the_secret(api: Api, answers: list[httpx.Response]) -> None:
    assert not [each.url for each in answers if PLANTED in each.text]
    for table in ("pipelines", "operations", "conditions", "idempotency_keys", "audit_logs"):
        rows = await api.database.fetch(f"SELECT to_jsonb(t)::text AS row FROM {table} t")
        assert not [row["row"] for row in rows if PLANTED in row["row"]], table
