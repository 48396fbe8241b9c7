"""Documents that change mid-stream: the table follows without a restart, no value is lost, each change is recorded."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from topic_pipeline import TopicPipeline
from typer.testing import CliRunner
from waiting import wait_until

from cdc_shared.delta.schema_history import SchemaChange, read_schema_history
from cdc_shared.models.data_quality import EvolutionSpec
from cdc_shared.storage.object_store import open_store
from delta_writer.command_line import app

pytestmark = pytest.mark.integration

DOCUMENTS = 1_000
TIMEOUT_S = 60.0

Document = dict[str, Any]


def started(new_pipeline: Callable[..., TopicPipeline], **evolution: Any) -> TopicPipeline:
    """A running pipeline whose spec has this `evolution`."""
    pipeline = new_pipeline(start=False)
    pipeline.spec = pipeline.spec.model_copy(update={"evolution": EvolutionSpec.model_validate(evolution)})
    pipeline.start()
    return pipeline


def history(pipeline: TopicPipeline) -> list[SchemaChange]:
    return read_schema_history(open_store(pipeline.items.url, pipeline.stack.object_store))


def added(change: SchemaChange) -> dict[str, str]:
    """Path → type of what a change has added."""
    return {each.path: each.type for each in change.fields if each.change == "added"}


def starts(pipeline: TopicPipeline) -> int:
    """How often the writer has started the pipeline."""
    told = pipeline.writer.log_events()
    return sum(each.get("event") == "pipeline starting" and each["pipeline"] == pipeline.name for each in told)


def test_a_thousand_documents_evolve_mid_stream(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = started(new_topic_pipeline, promotion={"enabled": False})
    items, writer = pipeline.items, pipeline.writer
    documents: dict[int, Document] = {
        n: {"_id": n, "n": n, "name": f"item {n}", "tags": ["a"], "lines": [{"sku": "x"}], "later": None}
        for n in range(DOCUMENTS)
    }
    items.insert(*documents.values())
    items.await_equal(TIMEOUT_S)
    pid = writer.pid

    def evolve(change: Callable[[int], Mapping[str, Any]]) -> None:
        """Every document, in an order of its own."""
        for n in rng.sample(sorted(documents), DOCUMENTS):
            documents[n] = {**documents[n], **change(n)}
            items.update(documents[n])
        items.flush()

    evolve(lambda n: {"colour": "red", "size": n / 4})  # new fields
    evolve(lambda n: {"n": str(n) if n % 2 else n + 0.5})  # another type
    evolve(lambda n: {"maker": {"name": "m", "address": {"zip": f"{n:05}", "geo": {"lat": n / 8}}}})  # nested
    evolve(lambda n: {"lines": [{"sku": "x"}, {"sku": "y", "discount": {"percent": n}}]})  # in a list of structs
    evolve(lambda n: {"later": {"at": {"$date": 1_700_000_000_000 + n}}, "tags": [1, "mixed", None]})  # null until now
    for n in rng.sample(sorted(documents), DOCUMENTS):  # fields that vanish
        documents[n] = {"_id": n, "n": n, "maker": {"name": None}, "": {"$odd names": n}}
        items.update(documents[n])
    items.await_equal(TIMEOUT_S)

    assert (writer.pid, writer.alive, starts(pipeline)) == (pid, True, 1)
    assert writer.get("/health").json()["pipelines"][pipeline.name]["state"] == "running"
    first, *rest = history(pipeline)
    assert added(first) == {
        "/_id": "long", "/n": "long", "/name": "string", "/tags": "array<string>",
        "/lines": "array<struct>", "/lines/*/sku": "string",
    }  # fmt: skip
    new = {path: type_ for change in rest for path, type_ in added(change).items()}
    assert new == {
        "/colour": "string", "/size": "double",
        "/maker": "struct", "/maker/name": "string", "/maker/address": "struct", "/maker/address/zip": "string",
        "/maker/address/geo": "struct", "/maker/address/geo/lat": "double",
        "/lines/*/discount": "struct", "/lines/*/discount/percent": "long",
        "/later": "struct", "/later/at": "date",
        "/": "struct", "//$odd names": "long",
    }  # fmt: skip
    assert [change.version for change in (first, *rest)] == list(range(1, len(rest) + 2))
    offsets = {
        path: each.event.offset // DOCUMENTS
        for change in rest
        for each in change.fields
        if (path := each.path) and each.event is not None and each.event.topic == items.topic
    }
    rounds = {"/colour": 1, "/maker/address/geo/lat": 3, "/lines/*/discount": 4, "/later/at": 5, "//$odd names": 6}
    assert {path: offsets[path] for path in rounds} == rounds
    properties = pipeline.properties("items")
    assert properties["cdc.schemaVersion"] == str(len(rest) + 1)

    environment = {**pipeline.stack.writer_environment, "CDC_PIPELINES_TOPIC": pipeline.specs_topic}
    told = CliRunner().invoke(app, ["schema-history", pipeline.name, "items"], env=environment).output
    assert f"version {len(rest) + 1}" in told
    assert f"/maker/address/geo/lat  double  first shown by {items.topic}:0:" in told


def test_a_field_that_must_not_conflict_stops_the_pipeline_until_it_may(
    new_topic_pipeline: Callable[..., TopicPipeline],
) -> None:
    pipeline = started(new_topic_pipeline, fields=[{"path": "/price", "conflict_resolution_mode": "fail"}])
    items = pipeline.items
    items.insert(*({"_id": n, "price": n, "note": n} for n in range(20)))
    items.await_equal(TIMEOUT_S)
    items.update({"_id": 1, "price": 1, "note": "other fields may"}, {"_id": 2, "price": "the secret", "note": 2})
    items.flush()
    reason = pipeline.writer.wait_state(pipeline.name, "failed") or ""
    for part in ("field /price", f"{items.topic}:0:21", "string", "long", items.url, "rescue"):
        assert part in reason
    assert "the secret" not in pipeline.writer.log_file.read_text() + reason

    pipeline.publish(pipeline.spec.model_copy(update={"evolution": EvolutionSpec()}))
    wait_until(lambda: pipeline.writer.pipeline_state(pipeline.name)[0] == "running", TIMEOUT_S, "it runs again")
    items.await_equal(TIMEOUT_S)
