"""A resync by filter: what is asked for, and when it is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.reread_requests import RereadsRequested
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.resync import filtered_resync as module
from cdc_shared.resync.filtered_resync import MAX_DOCUMENTS, RereadsAsked, are_answered, ask_for_matching
from cdc_shared.settings import ObjectStoreSettings

pytestmark = pytest.mark.unit

SPEC = PipelineSpec(
    name="p",
    source=SourceSpec(connection="env:X", database="shop", include_collections=("items",)),
    sink={"root": "/tmp/nowhere"},  # type: ignore[arg-type]
)
TOPIC = ChangeTopic("p.shop.items", "id", 2)


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys = ["1", "2"]
        self.failed: dict[str, str] = {}
        self.sent: list[tuple[Any, ...]] = []
        self.table = Snapshot(1, None, None)
        self.has_change = True
        monkeypatch.setattr(module, "matching_keys", self._matching)
        monkeypatch.setattr(module, "request_rereads", self._request)
        monkeypatch.setattr(module, "AdminClient", lambda config: None)
        monkeypatch.setattr(module, "topic_id", lambda admin, name: TopicIdentity("id", 2))
        monkeypatch.setattr(module, "held_offsets", lambda admin, name, partitions: {0: (0, 7), 1: (0, 9)})
        monkeypatch.setattr(module, "DeltaLog", lambda store: SimpleNamespace(load=lambda: self.table))

    def ask(self, collection: str = "items") -> RereadsAsked:
        return ask_for_matching(SPEC, collection, {"n": 1}, None, "kafka:1", "because")  # type: ignore[arg-type]

    def answered(self, asked: RereadsAsked) -> bool:
        positions: Any = SimpleNamespace(has_change=lambda *_: self.has_change)
        return are_answered(SPEC, "items", asked, ObjectStoreSettings(), positions)

    def _matching(self, source: Any, collection: Collection, filter_: Any, limit: int) -> list[str]:
        assert (collection, filter_, limit) == (Collection("shop", "items"), {"n": 1}, MAX_DOCUMENTS)
        return self.keys

    def _request(self, *args: Any, reason: str) -> RereadsRequested:
        self.sent.append((*args, reason))
        return RereadsRequested(len(self.keys) - len(self.failed), self.failed)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_what_matches_is_asked_for(world: World) -> None:
    assert world.ask() == RereadsAsked(2, TOPIC, {0: 7, 1: 9})
    assert world.sent == [("kafka:1", "p", "shop", "items", ["1", "2"], "because")]


def test_it_is_answered_when_the_table_stands_behind_the_requests(world: World) -> None:
    asked = world.ask()
    assert not world.answered(asked)
    world.table = Snapshot(2, None, None, txns={app_id(TOPIC, 0): 7, app_id(TOPIC, 1): 8})
    assert not world.answered(asked)
    world.has_change = False
    assert world.answered(asked)
    world.has_change, world.table = True, Snapshot(2, None, None, txns={app_id(TOPIC, 0): 7, app_id(TOPIC, 1): 9})
    assert world.answered(asked)


def test_nothing_matches(world: World) -> None:
    world.keys = []
    asked = world.ask()
    assert asked.documents == 0
    assert world.answered(asked)


def test_a_collection_that_is_not_captured_is_refused(world: World) -> None:
    with pytest.raises(Fatal, match="does not capture others"):
        world.ask("others")
    assert world.sent == []


def test_requests_that_kafka_has_not_taken_are_sent_again(world: World) -> None:
    world.failed = {"2": "no broker"}
    with pytest.raises(Transient, match="1 of 2 re-read requests were not acknowledged: no broker"):
        world.ask()
