"""What is a pipeline's own, and only that, is taken away."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import obstore
import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc_shared.delta.actions import Action
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.table_metadata import TableIdentity, new_metadata, protocol_for
from cdc_shared.documents import DocumentSchema
from cdc_shared.errors import Transient
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from control_plane.controller.operations.removal import (
    change_topics_of,
    connector_topics_of,
    remove_table,
    remove_topics,
    tables_of,
)

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings()


def spec_of(name: str, root: Path | str = "/nowhere", database: str = "db") -> PipelineSpec:
    return PipelineSpec(
        name=name,
        source=SourceSpec(connection="env:X", database=database),
        sink={"root": str(root)},  # type: ignore[arg-type]
    )


def make_table(url: str, owner: TableIdentity, files: int = 1) -> None:
    store = open_store(url, STORES)
    mode = "deletion_vectors"
    metadata = new_metadata(owner, DocumentSchema(()), mode, 1, 0)
    DeltaLog(store).append(0, [Action(protocol=protocol_for(mode)), Action(meta_data=metadata)])
    for number in range(files):
        obstore.put(store, f"part-{number}.parquet", b"x")


def test_tables_of_others_are_not_the_pipelines(tmp_path: Path) -> None:
    for name in ("items", "items__changes", "größe"):
        directory = "gr_xf6__xdf_e" if name == "größe" else name
        make_table(f"{tmp_path}/p/db/{directory}", TableIdentity("p", "db", name))
    make_table(f"{tmp_path}/p/db/foreign", TableIdentity("q", "db", "foreign"))
    (tmp_path / "p" / "db" / "no-table").mkdir()
    (tmp_path / "p" / "db" / "no-table" / "notes.txt").write_text("mine")
    make_table(f"{tmp_path}/p/other/items", TableIdentity("p", "other", "items"))
    assert tables_of(spec_of("p", tmp_path), STORES) == [
        f"{tmp_path}/p/db/{each}" for each in ("gr_xf6__xdf_e", "items", "items__changes")
    ]
    assert tables_of(spec_of("unknown", tmp_path), STORES) == []


def test_a_table_is_removed_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("items", "items2"):
        make_table(f"{tmp_path}/p/db/{name}", TableIdentity("p", "db", name), files=3)
    assert remove_table(f"{tmp_path}/p/db/items", STORES)
    assert remove_table(f"{tmp_path}/p/db/items", STORES)
    assert [each for each in (tmp_path / "p" / "db" / "items").rglob("*") if each.is_file()] == []
    assert tables_of(spec_of("p", tmp_path), STORES) == [f"{tmp_path}/p/db/items2"]
    assert len(list((tmp_path / "p" / "db" / "items2").glob("*.parquet"))) == 3


def test_a_large_table_takes_several_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.controller.operations.removal.OBJECTS_A_REQUEST", 2)
    make_table(f"{tmp_path}/t", TableIdentity("p", "db", "t"), files=6)
    ticks = iter(range(0, 1000, 10))
    steps = 1
    while not remove_table(f"{tmp_path}/t", STORES, lambda: float(next(ticks))):
        steps += 1
    assert 1 < steps < 7


def test_topics_are_the_pipelines_own() -> None:
    mine = ["cdc.notifications.db.items", "p.db.a", "p.db.cdc_heartbeat", "p.db.x_y"]
    others = [
        "p.other.a",
        "p.dbx.a",
        "pp.db.a",
        "cdc.notifications.p",
        "cdc.signals.p",
        "__debezium-heartbeat.p",
        "cdc.pipelines",
    ]
    assert change_topics_of(spec_of("p"), [*mine, *others]) == mine[1:]
    # Another pipeline's notifications lie among the topics of this one, by their names.
    cdc = spec_of("cdc", database="notifications")
    assert change_topics_of(cdc, [*others, "cdc.notifications.p", "cdc.notifications"]) == []
    assert connector_topics_of("p", [*mine, *others]) == [
        "__debezium-heartbeat.p",
        "cdc.notifications.p",
        "cdc.signals.p",
    ]


class Admin:
    def __init__(self, **errors: int) -> None:
        self.errors = errors
        self.asked: list[str] = []

    def delete_topics(self, topics: list[str], **_: Any) -> dict[str, Future[None]]:
        self.asked += topics
        answers = {topic: Future[None]() for topic in topics}
        for topic, future in answers.items():
            if topic in self.errors:
                future.set_exception(KafkaException(KafkaError(self.errors[topic])))
            else:
                future.set_result(None)
        return answers


def test_topics_that_are_gone_do_no_harm() -> None:
    admin: Any = Admin(a=KafkaError.UNKNOWN_TOPIC_OR_PART)
    remove_topics(admin, ["a", "b"])
    assert admin.asked == ["a", "b"]
    remove_topics(admin, [])
    with pytest.raises(Transient, match="delete topic b"):
        remove_topics(Admin(b=KafkaError.REQUEST_TIMED_OUT), ["a", "b"])  # type: ignore[arg-type]
