"""Fields that change their type on the real stack: rescued, promoted while changes come, and never restarted for it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

import pytest
from bson import DatetimeMS, ObjectId
from delta_reading import READERS, open_table, query_with_duckdb
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.models.data_quality import EvolutionSpec
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.integration

DOCUMENTS: Final = 300
AFTER_CONFLICTS: Final = 50
TIMEOUT_S: Final = 60.0
OF_MANY_TYPES: Final[tuple[Any, ...]] = (
    7, 7.5, "seven", True, None, [7, "7"], {"seven": 7}, DatetimeMS(7), ObjectId(f"{7:024x}"), -0.0, [], {},
)  # fmt: skip


def test_columns_are_promoted_while_changes_come(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = evolving(new_topic_pipeline, promotion={"after_conflicts": AFTER_CONFLICTS})
    items, writer = pipeline.items, pipeline.writer
    items.insert(*({"_id": n, "exact": n, "large": 2**60 + n, "mixed": n, "text": n} for n in range(DOCUMENTS)))
    items.await_equal(TIMEOUT_S)
    pid = writer.pid
    assert types_of(pipeline) == dict.fromkeys(("_id", "exact", "large", "mixed", "text"), "long")

    def change(n: int) -> dict[str, Any]:
        large = n + 0.25 if n % 2 else 2**60 + n
        return {"_id": n, "exact": n + 0.5, "large": large, "mixed": rng.choice(OF_MANY_TYPES), "text": f"text {n}"}

    items.update(*map(change, range(DOCUMENTS)))

    def promoted() -> bool:
        pipeline.check_running()
        items.update(change(rng.randrange(DOCUMENTS // 2)))  # every promotion races with changes
        items.flush()
        return "long" not in {each for name, each in types_of(pipeline).items() if name != "_id"}

    wait_until(promoted, TIMEOUT_S, "every column is promoted")
    items.await_equal(TIMEOUT_S)
    assert types_of(pipeline)["exact"] == "double"
    assert types_of(pipeline)["large"].startswith("number:"), "not every long of it is a double"
    retyped = [each.path for change in history(pipeline) for each in change.fields if each.change == "retyped"]
    assert set(retyped) == {"/exact", "/large", "/mixed", "/text"}

    rows = query_with_duckdb(items.url, pipeline.stack.object_store, "SELECT * FROM t ORDER BY _id").to_pylist()
    assert [row["_cdc_rescued"] for row in rows] == [None] * DOCUMENTS, "what was rescued is in the columns"
    assert [row["exact"] for row in rows] == [n + 0.5 for n in range(DOCUMENTS)]
    for read in READERS.values():
        assert pipeline.rows("items", read) == items.model
    assert (writer.pid, writer.alive) == (pid, True)
    assert writer.pipeline_state(pipeline.name) == ("running", None)


def test_each_field_meets_other_types_as_its_policy_says(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    modes = {"string": "as_string", "json": "as_json"}
    fields = [{"path": f"/{name}", "conflict_resolution_mode": mode} for mode, name in modes.items()]
    pipeline = evolving(new_topic_pipeline, fields=fields, promotion={"enabled": False})
    items = pipeline.items
    names = [*modes.values(), "as_it_comes"]
    items.insert(*({"_id": n, **dict.fromkeys(names, 7)} for n in range(len(OF_MANY_TYPES))))
    items.await_equal(TIMEOUT_S)
    items.update(*({"_id": n, **dict.fromkeys(names, value)} for n, value in enumerate(OF_MANY_TYPES)))
    items.await_equal(TIMEOUT_S)

    assert types_of(pipeline) == {"_id": "long", "as_string": "text", "as_json": "json", "as_it_comes": "long"}
    rows = query_with_duckdb(items.url, pipeline.stack.object_store, "SELECT * FROM t ORDER BY _id").to_pylist()
    for row, value in zip(rows, OF_MANY_TYPES, strict=True):
        rescued = json.loads(row["_cdc_rescued"] or "{}")
        assert "/as_json" not in rescued, value
        assert (row["as_json"] is None) == (value is None), value
        assert (row["as_string"] is None) == (value is None), value
        assert ("/as_string" in rescued) == (value is not None and not isinstance(value, str)), value
        assert ("/as_it_comes" in rescued) == (value is not None and value != 7), value
        if isinstance(value, str):
            assert row["as_string"] == value


def evolving(new_topic_pipeline: Callable[..., TopicPipeline], **evolution: Any) -> TopicPipeline:
    """A running pipeline whose spec has this `evolution`."""
    pipeline = new_topic_pipeline(start=False)
    pipeline.spec = pipeline.spec.model_copy(update={"evolution": EvolutionSpec.model_validate(evolution)})
    pipeline.start()
    return pipeline


def types_of(pipeline: TopicPipeline) -> dict[str, str]:
    """The `cdc.type` of each column that is a field."""
    table = open_table(pipeline.items.url, pipeline.stack.object_store)
    assert table is not None
    columns = json.loads(table.schema().to_json())["fields"]
    return {each["name"]: each["metadata"]["cdc.type"] for each in columns if not each["name"].startswith("_cdc_")}


def history(pipeline: TopicPipeline) -> list[Any]:
    return list(read_schema_history(open_store(pipeline.items.url, pipeline.stack.object_store)))
