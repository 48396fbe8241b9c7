"""How a pipeline with a real source gets on, as the API tells it: its snapshot, its lag, and a writer that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from api_app import Api
from mongo_pipeline import MongoPipeline

from cdc_shared.snapshots.snapshot_progress import SnapshotState
from control_plane.models.monitoring import PipelineHealth
from control_plane.permissions import Role

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

TIMEOUT_S = 40.0


async def known(api: Api, pipeline: MongoPipeline) -> None:
    """Have the control plane know of a pipeline that was started past it."""
    source = pipeline.spec.source.model_dump(mode="json", include={"connection", "database"})
    answer = await (await api.admin()).post("/api/v1/pipelines", json={"name": pipeline.name, "source": source})
    assert answer.status_code == 201, answer.text
    await api.database.fetch("UPDATE pipelines SET started = true WHERE name = $1", pipeline.name)


async def status_when(
    client: httpx.AsyncClient, name: str, condition: Callable[[PipelineHealth], bool], what: str
) -> PipelineHealth:
    status = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                answer = await client.get(f"/api/v1/pipelines/{name}/status")
                assert answer.status_code == 200, answer.text
                status = PipelineHealth.model_validate(answer.json())
                if condition(status):
                    return status
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"never: {what}; last: {status}") from None


@pytest.mark.timeout(150)
async def test_a_pipelines_status_tells_of_its_snapshot_its_lag_and_its_writer(
    api: Api, new_pipeline: Callable[..., MongoPipeline]
) -> None:
    pipeline = new_pipeline(start=False)
    name = pipeline.name
    pipeline.db["items"].insert_many([{"_id": number, "name": "x"} for number in range(500)])
    pipeline.start()
    await known(api, pipeline)
    analyst = await api.signed_in(Role.ANALYST)
    status = await status_when(
        analyst,
        name,
        lambda each: each.snapshot is not None and each.metrics.lag_seconds is not None and not each.metrics.lag_events,
        "the snapshot is complete and everything is in the table",
    )
    assert status.snapshot is not None
    assert (status.snapshot.state, status.snapshot.percent) == (SnapshotState.COMPLETED, 100)
    assert status.snapshot.started_at <= (status.snapshot.completed_at or status.snapshot.started_at)
    assert status.metrics.lag_seconds is not None
    assert status.metrics.lag_seconds < TIMEOUT_S
    (items,) = status.metrics.collections
    assert (items.database, items.collection, items.schema_version) == (pipeline.database, "items", 1)
    assert items.events == len(pipeline.documents("items"))
    assert [each.state for each in status.metrics.writers] == ["running"]

    pipeline.writer.kill()
    for number in range(30):
        pipeline.db["items"].insert_one({"_id": f"late-{number}"})
    behind = await status_when(
        analyst, name, lambda each: (each.metrics.lag_events or 0) >= 30, "what nobody reads is counted"
    )
    assert behind.metrics.lag_seconds is not None
