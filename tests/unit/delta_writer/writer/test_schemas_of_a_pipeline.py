"""Schemas followed through the whole pipeline: the table's and its history's, with rules, restarts and crashes."""

from pathlib import Path

import pytest
from local_pipeline import LocalPipeline

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.delta.schema_history import SCHEMA_VERSION, SchemaChange, read_schema_history
from cdc_shared.delta.table_metadata import schema_of
from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.unit

TABLE, CHANGES = "things", "things__changes"


class Killed(BaseException):
    """The process dies here."""


def history_of(run: LocalPipeline, name: str = TABLE) -> list[SchemaChange]:
    return read_schema_history(open_store(f"{run.root}/p/db/{name}", ObjectStoreSettings()))


def shown(changes: list[SchemaChange]) -> list[dict[str, int | None]]:
    """Of each version, what was added → the offset of the event that showed it."""
    return [
        {f.path: None if f.event is None else f.event.offset for f in change.fields if f.change == "added"}
        for change in changes
    ]


@pytest.mark.parametrize("mode", ["deletion_vectors", "copy_on_write"])
def test_a_table_and_its_history_each_have_the_history_of_their_schema(tmp_path: Path, mode: str) -> None:
    run = LocalPipeline(tmp_path, history=True, mode=mode)
    for document in ({"_id": 1, "a": 1}, {"_id": 1, "a": 2}, {"_id": 2, "a": 1, "b": {"c": "x"}}):
        run.kafka.send(str(document["_id"]), "c", document)
    run.go()
    run.kafka.send("1", "u", {"_id": 1, "a": "no long"})
    run.kafka.send("2", "d", None)
    run.kafka.send("3", "u", {"_id": 3, "b": {"d": [1.5]}})
    run.go()  # another process
    steps = [{"/_id": 0, "/a": 0, "/b": 2, "/b/c": 2}, {"/b/d": 5}]
    for name in (TABLE, CHANGES):
        changes = history_of(run, name)
        assert [change.version for change in changes] == list(range(1, len(changes) + 1))
        assert [step for step in shown(changes) if step] == steps
        assert changes[-1].fields[0].event == EventPosition("p.db.things", 0, 5)


def test_a_crash_between_the_record_and_the_commit_leaves_a_history_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LocalPipeline(tmp_path)
    run.kafka.send("1", "c", {"_id": 1, "a": 1})
    run.go()
    run.kafka.send("2", "c", {"_id": 2, "a": 1, "b": 1})

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as crash:
        crash.setattr(DeltaLog, "append", die)
        with pytest.raises(Killed):
            run.go()
    assert len(history_of(run)) == 1
    run.go()
    assert shown(history_of(run)) == [{"/_id": 0, "/a": 0}, {"/b": 1}]
    records = list(Path(run.root, "p/db/things/_cdc_schema").iterdir())
    assert len(records) == 3


def test_rules_change_what_a_table_gets_and_the_record_says_by_which(tmp_path: Path) -> None:
    run = LocalPipeline(tmp_path)
    transformation = [
        {"rule": "rename", "path": "/a", "to": "renamed"},
        {"rule": "drop", "path": "/secret"},
        {"rule": "constant", "path": "/origin", "value": "shop"},
    ]
    quality = QualitySpec.model_validate({"version": 3, "transformation": transformation})
    run.spec = run.spec.model_copy(update={"quality": quality})
    run.kafka.send("1", "c", {"_id": 1, "a": 1, "secret": "x"})
    run.go()
    run.kafka.send("2", "c", {"_id": 2, "a": 2, "secret": 5, "b": True})
    run.go()
    first, second = history_of(run)
    assert shown([first, second]) == [{"/_id": 0, "/renamed": 0, "/origin": 0}, {"/b": 1}]
    assert (first.rules_version, second.rules_version) == (3, 3)
    assert "secret" not in first.schema + second.schema


def test_a_rejected_document_shows_no_field(tmp_path: Path) -> None:
    """A column that only it has does not come."""
    run = LocalPipeline(tmp_path)
    quality = QualitySpec.model_validate(
        {"version": 1, "dirty_data": {"policy": "skip"}, "validation": [{"rule": "required", "path": "/a"}]}
    )
    run.spec = run.spec.model_copy(update={"quality": quality})
    run.kafka.send("1", "c", {"_id": 1, "b": 1, "c": 1})
    run.kafka.send("2", "c", {"_id": 2, "a": 1, "b": 1})
    run.go()
    (change,) = history_of(run)
    assert shown([change]) == [{"/_id": 1, "/b": 1, "/a": 1}]
    metadata = DeltaLog(open_store(f"{run.root}/p/db/things", ObjectStoreSettings())).load().metadata
    assert metadata is not None
    assert metadata.configuration[SCHEMA_VERSION] == "1"
    assert schema_of(metadata).by_name["b"].type == t.LONG
