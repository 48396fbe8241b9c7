"""Rules, dry runs, dead letters and schema histories through the API, over a pipeline with real events and tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_app import Api, open_api, settings_for
from api_database import TrialDatabase
from pymongo import MongoClient
from stack_endpoints import DATA_KEY_ENVIRONMENT
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.settings import KafkaSettings
from control_plane.models.pipeline import PipelineConfig
from control_plane.permissions import Role

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

TIMEOUT_S = 60.0
SECRET = "Ursula-K-4711"
RULES = {
    "validation": [{"rule": "range", "name": "positive", "path": "/total", "min": 0}],
    "transformation": [{"rule": "redact", "path": "/name"}],
}


@pytest.fixture
def pipeline(new_topic_pipeline: Callable[..., TopicPipeline]) -> TopicPipeline:
    """Running, with a rule that one of its three documents fails."""
    made = new_topic_pipeline(start=False)
    quality = QualitySpec.model_validate({"validation": RULES["validation"]})
    made.spec = made.spec.model_copy(update={"quality": quality})
    made.start()
    made.items.insert({"_id": 1, "name": SECRET, "total": 5}, {"_id": 2, "name": SECRET, "total": -5})
    made.items.update({"_id": 1, "name": SECRET, "total": 6})
    return made


@pytest.fixture
async def api(
    pipeline: TopicPipeline, database: TrialDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """The application, which knows the pipeline; its specs are in a topic of their own."""
    for name, value in DATA_KEY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = settings_for(pipeline.stack, database, tmp_path)
    kafka = KafkaSettings(bootstrap_servers=pipeline.stack.kafka, pipelines_topic=pipeline.specs_topic)
    async with open_api(replace(settings, kafka=kafka), database) as opened:
        names = PipelineConfig.model_fields.keys()
        config = PipelineConfig(**{name: value for name, value in dict(pipeline.spec).items() if name in names})
        async with opened.platform.database.transaction() as connection:
            await opened.platform.pipelines.create(connection, config, "test")
        yield opened


def url(pipeline: TopicPipeline, rest: str) -> str:
    return f"/api/v1/pipelines/{pipeline.name}/{rest}"


async def letters_of(client: httpx.AsyncClient, pipeline: TopicPipeline, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(url(pipeline, "dead-letters"), params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def await_letter(pipeline: TopicPipeline) -> None:
    """Wait until the writer has rejected the second document and applied the third event."""

    def is_rejected() -> bool:
        return any(line.get("event") == "record sent to the dead-letter topic" for line in pipeline.writer.log_events())

    wait_until(is_rejected, TIMEOUT_S, "the writer rejects a document")
    wait_until(lambda: len(pipeline.rows(pipeline.items.name)) == 1, TIMEOUT_S, "the others are in the table")


async def test_rules_are_tried_out_changed_and_listed(api: Api, pipeline: TopicPipeline) -> None:
    admin, operator, analyst = [await api.signed_in(role) for role in (Role.ADMIN, Role.OPERATOR, Role.ANALYST)]
    wanted = {"collection": pipeline.items.name, "rules": RULES}
    seen = await admin.post(url(pipeline, "rules/dry-run"), json=wanted)
    assert seen.status_code == 200, seen.text
    result = seen.json()
    assert (result["read"], result["rejected"], result["values_shown"]) == (3, 1, True)
    changed = next(each for each in result["events"] if each["rejected"] is None)
    assert changed["changed"] == ["/name"]
    assert changed["before"]["name"] == SECRET
    assert SECRET not in str(changed["after"])

    hidden = await operator.post(url(pipeline, "rules/dry-run"), json={**wanted, "rules": {}})
    assert SECRET not in hidden.text
    assert hidden.json()["values_shown"] is False
    assert (await analyst.post(url(pipeline, "rules/dry-run"), json=wanted)).status_code == 403

    before = await analyst.get(url(pipeline, "rules"))
    assert before.json()["rules"]["transformation"] == []
    assert (await operator.put(url(pipeline, "rules"), json=RULES)).status_code == 428
    match = {"If-Match": before.headers["ETag"]}
    after = await operator.put(url(pipeline, "rules"), json=RULES, headers=match)
    assert after.status_code == 200, after.text
    assert after.json()["rules"]["transformation"][0]["rule"] == "redact"
    assert after.headers["ETag"] != before.headers["ETag"]
    assert (await operator.put(url(pipeline, "rules"), json={}, headers=match)).status_code == 412
    current = {"If-Match": after.headers["ETag"]}
    for bad in ({"validation": [{"rule": "range"}]}, {"strange": 1}, {"transformation": [{"rule": "sql"}]}):
        assert (await operator.put(url(pipeline, "rules"), json=bad, headers=current)).status_code == 422

    pipeline.publish_quality(**RULES)
    versions = (await analyst.get(url(pipeline, "rules/versions"))).json()["items"]
    assert versions[0]["version"] == pipeline.spec.quality.version
    assert versions[0]["rules"]["transformation"][0]["path"] == "/name"


async def test_dead_letters_are_listed_shown_replayed_and_discarded(api: Api, pipeline: TopicPipeline) -> None:
    await_letter(pipeline)
    admin, operator, analyst = [await api.signed_in(role) for role in (Role.ADMIN, Role.OPERATOR, Role.ANALYST)]
    (letter,) = await letters_of(operator, pipeline)
    assert (letter["code"], letter["rule"], letter["attempt"]) == ("validation_failed", "positive", 1)
    assert await letters_of(operator, pipeline, code="undecodable_key") == []
    assert (await analyst.get(url(pipeline, "dead-letters"))).status_code == 403

    place = url(pipeline, f"dead-letters/{letter['letter']}")
    masked = await operator.get(place)
    assert masked.status_code == 200, masked.text
    assert SECRET not in masked.text
    assert (await operator.get(f"{place}/revealed")).status_code == 403
    assert SECRET in (await admin.get(f"{place}/revealed")).text

    stranger = await api.signed_in(Role.ADMIN, pipelines=["another"])
    assert (await stranger.get(place)).status_code == 403
    assert (await admin.get(f"/api/v1/pipelines/another/dead-letters/{letter['letter']}")).status_code == 404
    assert (await operator.post(url(pipeline, "dead-letters/replay"), json={})).status_code == 422

    with MongoClient[dict[str, Any]](pipeline.stack.mongodb_uri) as client:
        client[pipeline.database][pipeline.items.name].insert_one({"_id": 2, "name": SECRET, "total": 7})
    replayed = await operator.post(url(pipeline, "dead-letters/replay"), json={"letters": [letter["letter"]]})
    assert replayed.status_code == 200, replayed.text
    assert (replayed.json()["replayed"], replayed.json()["refused"]) == (1, 0)
    wait_until(lambda: len(pipeline.rows(pipeline.items.name)) == 2, TIMEOUT_S, "the mended document is in the table")
    assert await letters_of(operator, pipeline) == []

    pipeline.items.insert({"_id": 3, "total": -1})

    wait_until(
        lambda: sum(e.get("event") == "record sent to the dead-letter topic" for e in pipeline.writer.log_events()) > 1,
        TIMEOUT_S,
        "another document is rejected",
    )
    discarded = await operator.post(url(pipeline, "dead-letters/discard"), json={"rule": "positive"})
    assert discarded.json() == {"discarded": 1}
    actions = [row["action"] for row in await api.database.fetch("SELECT action FROM audit_logs")]
    assert {"dead_letters.reveal", "dead_letters.replay", "dead_letters.discard"} <= set(actions)


async def test_schema_history_tells_what_each_field_came_from(api: Api, pipeline: TopicPipeline) -> None:
    await_letter(pipeline)
    analyst = await api.signed_in(Role.ANALYST)
    answer = await analyst.get(url(pipeline, f"collections/{pipeline.items.name}/schema"))
    assert answer.status_code == 200, answer.text
    history = answer.json()
    fields = {field["path"]: field for version in history["versions"] for field in version["fields"]}
    assert history["complete"] is True
    assert fields["/name"]["type"] == "string"
    assert fields["/name"]["event"].startswith(pipeline.topic(pipeline.items.name))
    assert (await analyst.get(url(pipeline, "collections/nothing-yet/schema"))).status_code == 404
