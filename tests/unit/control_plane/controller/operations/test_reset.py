"""The operation reset: nothing is forgotten or dropped before nobody works on it any more, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.resync.resync import ResyncTarget
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from control_plane.controller.operations import reset as module
from control_plane.controller.operations.operation import Done, OperationContext, Progress
from control_plane.controller.operations.reset import ResetOperation

pytestmark = pytest.mark.unit

SPEC = PipelineSpec(name="p", source=SourceSpec(connection="env:X", database="shop"))
KAFKA = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "kafka:1"})


class World:
    """Notes what was done in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.writers: list[str] = []
        self.is_there = True
        self.tables = ["t/a", "t/b"]
        self.topics = ["p.shop.a", "p.shop.cdc_heartbeat", "cdc.notifications.p", "cdc.signals.p", "q.shop.a"]
        self.pieces = 1
        self.refusal: Exception | None = None
        for name, fake in {
            "AdminClient": lambda config: None,
            "members": lambda admin, group: self.writers if group == "cdc-writer.p" else [],
            "ensure_connector_topics": lambda *_: None,
            "Resync": self._resync,
            "tables_of": lambda spec, stores: list(self.tables),
            "remove_table": self._remove_table,
            "all_topics": lambda admin: list(self.topics),
            "remove_topics": self._remove_topics,
        }.items():
            monkeypatch.setattr(module, name, fake)
        setup: Any = SimpleNamespace(prepare=lambda spec: self.done.append("prepare"), config=lambda spec: {"k": "v"})
        connect: Any = lambda: self  # noqa: E731
        self.is_strange = False
        self.operation = ResetOperation(KAFKA, ObjectStoreSettings(), connect, setup)

    def step(self, memory: Mapping[str, Any], desired: str = "stopped", **arguments: Any) -> Progress | Done:
        kept = json.loads(json.dumps(dict(memory)))  # as the row has it
        return self.operation.step(OperationContext(SPEC, desired, arguments, kept))

    def finish(self, *, twice: bool, **arguments: Any) -> str:
        """Take the steps to the end; with `twice` each of them twice, as after a crash before it was stored."""
        memory: Mapping[str, Any] = {}
        for _ in range(30):
            result = self.step(memory, **arguments)
            if twice:
                result = self.step(memory, **arguments)
            if isinstance(result, Done):
                return result.message
            assert result.holds_connector
            memory = result.memory
        raise AssertionError("it did not end")

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_somebody_elses(self, name: str) -> bool:
        return self.is_strange

    def status(self, name: str) -> ConnectorStatus | None:
        return ConnectorStatus(name, "STOPPED", "", ()) if self.is_there else None

    def create_stopped(self, name: str, config: Mapping[str, str]) -> None:
        assert config == {"k": "v"}
        self.done.append("create stopped")

    def stop(self, name: str, timeout_s: float) -> None:
        assert self.is_there
        self.done.append("stop")

    def forget_offsets(self, name: str, timeout_s: float) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.done.append("forget")

    def _resync(self, *_: Any) -> Any:
        def make_ready(collections: list[str]) -> ResyncTarget:
            self.done.append(f"ready {collections}")
            return ResyncTarget(0, {"a": None})  # type: ignore[dict-item]

        return SimpleNamespace(collections=lambda: ["a"], make_ready=make_ready)

    def _remove_table(self, url: str, stores: Any) -> bool:
        self.done.append(f"remove {url}")
        self.pieces -= 1
        if self.pieces > 0:
            return False
        self.tables = [each for each in self.tables if each != url]
        return True

    def _remove_topics(self, admin: Any, topics: list[str]) -> None:
        self.done += [f"remove {each}" for each in topics]
        self.topics = [each for each in self.topics if each not in topics]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_tables_are_kept_unless_told_otherwise(world: World) -> None:
    message = world.finish(twice=False)
    assert message == "the next start begins with a snapshot; 1 table kept for it to bring up to date"
    assert world.done == ["stop", "forget", "ready ['a']"]


@pytest.mark.parametrize("twice", [False, True])
def test_tables_are_dropped_with_what_would_fill_them_again(world: World, twice: bool) -> None:
    world.pieces = 3
    message = world.finish(twice=twice, keep_tables=False)
    assert message == "the next start begins with a snapshot; 2 tables dropped"
    assert world.tables == []
    assert world.topics == ["cdc.signals.p", "q.shop.a"]
    order = [each.rpartition("/")[0] or each for each in dict.fromkeys(world.done)]
    assert order[:2] == ["stop", "forget"]
    assert order.index("remove t") < order.index("remove p.shop.a")


def test_writers_leave_first(world: World) -> None:
    world.writers = ["w on h"]
    result = world.step({})
    assert isinstance(result, Progress)
    assert result.message == "waiting for the writers to leave: w on h"
    assert world.done == []


def test_of_a_connector_that_is_gone_the_offsets_are_forgotten_as_well(world: World) -> None:
    world.is_there = False
    first = world.step({}, keep_tables=False)
    assert isinstance(first, Progress)
    second = world.step(first.memory, keep_tables=False)  # Connect does not know it yet
    assert isinstance(second, Progress)
    assert world.done == ["prepare", "create stopped"]
    world.is_there = True
    world.step(second.memory, keep_tables=False)
    assert world.done[2:] == ["stop", "forget"]


def test_refusals_while_a_task_is_fenced_out_are_waited_out(world: World) -> None:
    world.refusal = Fatal("400 wrong request")
    with pytest.raises(Transient, match="400"):
        world.step({})


def test_a_pipeline_that_is_to_run_is_not_reset(world: World) -> None:
    with pytest.raises(Fatal, match="stop it"):
        world.step({}, "running")
    assert world.done == []


@pytest.mark.parametrize("keep_tables", [True, False])
def test_the_connector_of_somebody_else_is_left_alone(world: World, keep_tables: bool) -> None:
    world.is_strange = True
    world.finish(twice=False, keep_tables=keep_tables)
    assert not {"stop", "forget", "create stopped"} & set(world.done)
