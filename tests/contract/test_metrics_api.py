"""The contract of the monitoring endpoints: what they answer, to whom, and that they tell the truth of what is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_app import Api, open_api, settings_for
from api_database import TrialDatabase
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from stack_endpoints import Stack
from trial_pipeline import trial_name

from cdc_shared.kafka.compacted_topic import send_record
from cdc_shared.kafka.status_topic import (
    CollectionReport,
    ErrorReport,
    PartitionReport,
    WriterReport,
    encode_report,
    forget_reports,
    report_key,
)
from cdc_shared.kafka.topics import STATUS_TOPIC
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.settings import ConnectSettings, KafkaSettings
from control_plane.models.monitoring import PipelineHealth, PipelineMetrics, PlatformMetrics, Readiness
from control_plane.permissions import Role

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

WAIT_S = 15.0
NOWHERE = "127.0.0.1:1"
PARTS = {"postgres", "kafka", "writer-reports", "kafka-connect", "object-store"}

Say = Callable[..., None]


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition, and let the application go on meanwhile."""
    async with asyncio.timeout(WAIT_S):
        while not (value := condition()) or (hasattr(value, "__await__") and not await value):
            await asyncio.sleep(0.05)
    assert what


async def made(api: Api, name: str) -> None:
    body = {"name": name, "source": {"connection": "env:SHOP_MONGODB", "database": "shop"}}
    answer = await (await api.admin()).post("/api/v1/pipelines", json=body)
    assert answer.status_code == 201, answer.text


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@pytest.fixture
def shop(stack: Stack) -> Any:
    """A pipeline's name that no other test has; what is reported of it is taken back."""
    name = trial_name("metrics")
    yield name
    forget_reports(stack.kafka, name)


@pytest.fixture
def say(stack: Stack, shop: str) -> Say:
    """Reports as a writer of this pipeline does."""
    producer = Producer({"bootstrap.servers": stack.kafka})

    def say(writer: str = "w", state: PipelineState = PipelineState.RUNNING, **fields: Any) -> None:
        report = WriterReport(pipeline=shop, writer=writer, state=state, at_ms=ms(datetime.now(UTC)), **fields)
        send_record(producer, STATUS_TOPIC, report_key(shop, writer), encode_report(report))

    return say


def orders(lag: int = 3, **fields: Any) -> CollectionReport:
    # The topic does not exist: the lag is what the writer says.
    partitions = (PartitionReport(partition=0, offset=100, lag=lag),)
    return CollectionReport(
        database="shop", collection="orders", topic="none.shop.orders", partitions=partitions, **fields
    )


async def heard(api: Api, name: str, condition: Callable[[PipelineMetrics], bool] = lambda _: True) -> None:
    """Wait until what the writers said is known."""

    def known() -> bool:
        metrics = api.platform.monitoring.of_pipeline(name, datetime.now(UTC))
        return bool(metrics.writers) and condition(metrics)

    await until(known, "the report is read")


async def test_anybody_may_ask_whether_it_is_alive_and_ready_which_it_is_not_without_postgres(api: Api) -> None:
    anybody = await api.anybody()
    alive = await anybody.get("/health")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})

    async def is_ready() -> bool:
        return bool((await anybody.get("/ready")).json()["status"] == "ready")

    await until(is_ready, "all parts are found")
    readiness = TypeAdapter(Readiness).validate_python((await anybody.get("/ready")).json())
    assert {each.name for each in readiness.dependencies} == PARTS
    assert [each.name for each in readiness.dependencies if each.required] == ["postgres"]
    assert all(each.since is not None for each in readiness.dependencies)

    await api.platform.database.close()

    async def not_ready() -> bool:
        return (await anybody.get("/ready")).status_code == 503

    await until(not_ready, "it is noticed that Postgres is away")
    assert (await anybody.get("/ready")).json()["status"] == "not_ready"
    assert (await anybody.get("/health")).status_code == 200
    assert (await anybody.get("/metrics")).status_code == 200


async def test_metrics_and_status_are_for_those_who_may(api: Api, shop: str) -> None:
    await made(api, shop)
    anybody, analyst = await api.anybody(), await api.signed_in(Role.ANALYST)
    limited = await api.signed_in(Role.ANALYST, pipelines=["another"])
    for path in ("/api/v1/metrics", f"/api/v1/pipelines/{shop}/metrics", f"/api/v1/pipelines/{shop}/status"):
        assert (await anybody.get(path)).status_code == 401
        assert (await analyst.get(path)).status_code == 200
    assert (await limited.get(f"/api/v1/pipelines/{shop}/status")).status_code == 403
    assert (await limited.get(f"/api/v1/pipelines/{shop}/metrics")).status_code == 403
    assert (await limited.get("/api/v1/metrics")).json()["pipelines"] == []
    for part in ("metrics", "status"):
        unknown = await analyst.get(f"/api/v1/pipelines/unknown/{part}")
        assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
        assert (await analyst.get(f"/api/v1/pipelines/NOT A NAME/{part}")).status_code == 422

    # Nobody has ever run it: nothing is known, and that is what is said.
    metrics = PipelineMetrics.model_validate((await analyst.get(f"/api/v1/pipelines/{shop}/metrics")).json())
    assert (metrics.lag_seconds, metrics.lag_events, metrics.error_rate, metrics.observed_at) == (None,) * 4
    assert (metrics.writers, metrics.collections, metrics.events_per_s) == ([], [], 0)
    status = PipelineHealth.model_validate((await analyst.get(f"/api/v1/pipelines/{shop}/status")).json())
    assert (status.state, status.desired, status.pipeline) == ("stopped", "stopped", shop)


async def test_what_writers_report_is_told(api: Api, shop: str, say: Say) -> None:
    await made(api, shop)
    now = datetime.now(UTC)
    behind = orders(
        watermark_ms=ms(now - timedelta(seconds=60)),
        event_ms=ms(now - timedelta(seconds=61)),
        commit_ms=ms(now),
        latency_ms=900,
        events=1000,
        events_per_s=20.0,
        rejected=10,
        rejected_per_s=0.5,
        dead_letters=9,
        last_rejection="rule age",
        last_rejection_ms=ms(now),
        table_version=7,
        table_bytes=5000,
        schema_version=2,
    )
    error = ErrorReport(text="the store was away", at_ms=ms(now))
    say(collections=(behind,), last_error=error, retries=3, rules_version=4, findings=("look at this",))
    await heard(api, shop)
    analyst = await api.signed_in(Role.ANALYST)
    metrics = PipelineMetrics.model_validate((await analyst.get(f"/api/v1/pipelines/{shop}/metrics")).json())
    assert metrics.lag_seconds is not None
    assert 60 <= metrics.lag_seconds < 60 + WAIT_S + 10
    assert (metrics.lag_events, metrics.events_per_s, metrics.error_rate) == (3, 20.0, 0.025)
    assert (metrics.dead_letters, metrics.rejected, metrics.table_bytes) == (9, 10, 5000)
    assert metrics.last_error is not None
    assert (metrics.last_error.text, metrics.last_error.writer) == ("the store was away", "w")
    (writer,) = metrics.writers
    assert (writer.writer, writer.state, writer.findings, writer.partitions) == ("w", "running", ["look at this"], 1)
    (told,) = metrics.collections
    assert (told.collection, told.table_version, told.schema_version) == ("orders", 7, 2)
    assert (told.events, told.last_rejection, told.latency_ms) == (1000, "rule age", 900)
    status = PipelineHealth.model_validate((await analyst.get(f"/api/v1/pipelines/{shop}/status")).json())
    assert status.metrics.collections[0].watermark == told.watermark
    everything = PlatformMetrics.model_validate((await analyst.get("/api/v1/metrics")).json())
    (summary,) = everything.pipelines
    assert (summary.pipeline, summary.writers, summary.lag_events) == (shop, 1, 3)
    assert everything.object_store.table_bytes == 5000
    assert {each.name for each in everything.dependencies} == PARTS

    say(state=PipelineState.STOPPED, collections=(behind,))
    await heard(api, shop, lambda each: each.writers[0].state is PipelineState.STOPPED)
    stopped = PipelineMetrics.model_validate((await analyst.get(f"/api/v1/pipelines/{shop}/metrics")).json())
    assert (stopped.events_per_s, stopped.lag_events) == (0, 3), "it does nothing, and is as far behind as it was"
    assert (await analyst.get("/api/v1/metrics")).json()["pipelines"][0]["writers"] == 0


def samples(page: str, name: str) -> dict[str, float]:
    """A metric's samples by their labels."""
    families = text_string_to_metric_families(page)
    return {
        ",".join(f"{key}={value}" for key, value in sorted(each.labels.items())): each.value
        for family in families
        for each in family.samples
        if each.name == name
    }


async def test_prometheus_reads_requests_parts_and_pipelines(api: Api, shop: str, say: Say) -> None:
    now = datetime.now(UTC)
    say(collections=(orders(lag=5, watermark_ms=ms(now - timedelta(seconds=30)), events_per_s=2.0),))
    await heard(api, shop)
    await until(lambda: api.platform.monitoring.readiness().status == "ready", "all parts are found")
    anybody = await api.anybody()
    for path in (f"/api/v1/pipelines/{shop}/status", "/api/v1/pipelines/another/status", "/no/such/path"):
        assert (await anybody.get(path)).status_code in (401, 404)
    answer = await anybody.request("BREW", "/no/such/path")
    assert answer.status_code in (404, 405)
    page = await anybody.get("/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    requests = samples(page.text, "cdc_api_requests_total")
    assert requests["method=GET,route=/api/v1/pipelines/{name}/status,status=401"] == 2
    assert requests["method=GET,route=none,status=404"] == 1
    assert [each for each in requests if "other" in each], "any word may be a method, and makes no series of its own"
    assert samples(page.text, "cdc_api_request_seconds_count")
    assert set(samples(page.text, "cdc_api_dependency_up").values()) == {1.0}
    mine = f"pipeline={shop}"
    assert samples(page.text, "cdc_pipeline_lag_events")[mine] == 5
    assert samples(page.text, "cdc_pipeline_events_per_second")[mine] == 2
    assert 30 <= samples(page.text, "cdc_pipeline_lag_seconds")[mine] < 30 + WAIT_S + 10
    say(state=PipelineState.STOPPED, collections=(orders(),))
    await heard(api, shop, lambda each: each.writers[0].state is PipelineState.STOPPED)
    page = await anybody.get("/metrics")
    assert mine not in samples(page.text, "cdc_pipeline_lag_events"), "nobody wants it to run"


@pytest.fixture
async def cut_off(stack: Stack, database: TrialDatabase, tmp_path: Path) -> AsyncIterator[Api]:
    """The application without Kafka, Kafka Connect and the object store."""
    settings = settings_for(stack, database, tmp_path)
    alone = replace(
        settings,
        kafka=KafkaSettings(bootstrap_servers=NOWHERE),
        connect=ConnectSettings(url=f"http://{NOWHERE}"),
        stores=settings.stores.model_copy(update={"endpoint": f"http://{NOWHERE}"}),
    )
    async with open_api(alone, database) as opened:
        yield opened


async def test_what_is_away_is_told_and_the_api_goes_on(cut_off: Api, shop: str) -> None:
    await made(cut_off, shop)
    anybody, analyst = await cut_off.anybody(), await cut_off.signed_in(Role.ANALYST)

    def states() -> dict[str, str]:
        return {each.name: each.state for each in cut_off.platform.monitoring.collector.dependencies}

    away = {**dict.fromkeys(PARTS, "away"), "postgres": "ok"}
    await until(lambda: states() == away, "it is noticed what is away")
    answer = await anybody.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert NOWHERE not in answer.text, "who may ask is anybody: no address is told"
    details = {each["name"]: each for each in (await analyst.get("/api/v1/metrics")).json()["dependencies"]}
    assert all(details[name]["detail"] for name in PARTS - {"postgres"})
    for path in (f"/api/v1/pipelines/{shop}/status", f"/api/v1/pipelines/{shop}/metrics"):
        assert (await analyst.get(path)).status_code == 200
    page = (await anybody.get("/metrics")).text
    up = samples(page, "cdc_api_dependency_up")
    assert (up["dependency=kafka"], up["dependency=postgres"]) == (0, 1)
