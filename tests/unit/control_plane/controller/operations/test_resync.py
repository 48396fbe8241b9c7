"""The operation resync: its steps in their order, whatever fails, dies or changes its mind in between."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus, TaskStatus
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.common import InvalidSpec, PipelineSpec, SourceSpec
from cdc_shared.resync.filtered_resync import RereadsAsked
from cdc_shared.resync.resync import ResyncTarget
from cdc_shared.resync.resync_progress import START_TIMEOUT_S
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from control_plane.controller.operations import resync as module
from control_plane.controller.operations.operation import Done, OperationContext, Progress
from control_plane.controller.operations.resync import ResyncOperation, ResyncSystems

pytestmark = pytest.mark.unit

SPEC = PipelineSpec(name="p", source=SourceSpec(connection="env:X", database="shop"))
KAFKA = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "kafka:1"})
SEED = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)


class World:
    """A connector, its offsets, and the snapshot that it takes; notes what was done in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.tasks_run, self.has_offsets = "RUNNING", True, True
        self.must_start_anew = False
        self.done: list[str] = []
        self.published: list[PipelineSpec] = []
        self.begun = self.completed = False
        self.waiting = ["a", "b"]
        self.refusals: list[Exception] = []
        self.now_s = 1_000.0
        self.rng: random.Random | None = None
        self.matching, self.answered = 3, False
        for name, fake in {
            "Resync": self._resync,
            "ResyncProgress": self._progress,
            "publish": self._publish,
            "ask_for_matching": self._ask,
            "are_answered": lambda *_: self.answered,
            "TopicPositions": lambda *_: SimpleNamespace(close=lambda: None),
        }.items():
            monkeypatch.setattr(module, name, fake)
        source: Any = lambda spec: SimpleNamespace(close=lambda: self.done.append("close source"))  # noqa: E731
        connect: Any = lambda: self  # noqa: E731
        systems = ResyncSystems(KAFKA, ObjectStoreSettings(), connect, source)
        self.operation = ResyncOperation(systems, lambda: self.now_s)

    def step(
        self, memory: Mapping[str, Any] | None = None, desired: str = "running", attempts: int = 0, **arguments: Any
    ) -> Progress | Done:
        kept = json.loads(json.dumps(dict(memory or {})))  # as the row has it
        return self.operation.step(OperationContext(SPEC, desired, arguments, kept, attempts))

    def steps(self, until: str, **arguments: Any) -> Progress:
        """Take steps until the memory is at a phase; return the last."""
        result: Progress | Done = Progress({}, "")
        for _ in range(20):
            assert isinstance(result, Progress)
            if result.memory.get("phase") == until:
                return result
            result = self.step(result.memory, **arguments)
        raise AssertionError(f"it never came to {until}")

    # -- Kafka Connect ------------------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_somebody_elses(self, name: str) -> bool:
        self._maybe_fail()
        return False

    def status(self, name: str) -> ConnectorStatus:
        self._maybe_fail()
        runs = "RUNNING" if self.tasks_run else "UNASSIGNED"
        return ConnectorStatus(name, self.state, "", (TaskStatus(0, runs, ""),) if self.state == "RUNNING" else ())

    def stop(self, name: str, timeout_s: float) -> None:
        self._maybe_fail()
        self.state = "STOPPED"
        self.done.append("stop")
        self._maybe_fail()

    def resume(self, name: str) -> None:
        self._maybe_fail()
        self.run()
        self.done.append("resume")
        self._maybe_fail()

    def run(self) -> None:
        """The connector runs, and begins with a snapshot when it has no offsets."""
        if not self.has_offsets:
            self.begun, self.completed = True, False
        self.state, self.has_offsets = "RUNNING", True

    def forget_offsets(self, name: str, timeout_s: float) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        assert self.state == "STOPPED"
        self.has_offsets = False
        self.done.append("forget")
        self._maybe_fail()

    # -- a resync -----------------------------------------------------------------------------------------------------

    def _resync(
        self, spec: PipelineSpec, kafka: Any, stores: Any, connect: Any, wanted: Collection[str], say: Any
    ) -> Any:
        whole = not wanted

        def make_ready(collections: Collection[str]) -> ResyncTarget:
            self._maybe_fail()
            must_stop = whole or self.must_start_anew
            assert not must_stop or self.state == "STOPPED", "a task may send what would count as the snapshot"
            assert not whole or not self.has_offsets
            self.begun = self.completed = False  # what came before does not count
            self.done.append("ready")
            return ResyncTarget(7, {each: ChangeTopic(f"p.shop.{each}", "id", 1) for each in collections})

        def signal(collections: Collection[str]) -> None:
            self._maybe_fail()
            assert not whole
            self.done.append(f"signal {','.join(collections)}")
            self.begun = True
            self._maybe_fail()

        return SimpleNamespace(
            is_whole=whole,
            check=self._maybe_fail,
            collections=lambda: sorted(wanted) or ["a", "b"],
            must_stop=lambda collections: whole or self.must_start_anew,
            make_ready=make_ready,
            signal=signal,
        )

    def _progress(self, spec: Any, stores: Any, target: ResyncTarget, bootstrap: str, say: Any) -> Any:
        assert target.since == 7
        waiting = [each for each in self.waiting if each in target.topics]
        progress = SimpleNamespace(
            begun=self.begun,
            completed=self.completed,
            waiting=waiting,
            is_over=self.completed and not waiting,
            is_up_to_date=False,
        )

        def look(timeout_s: float) -> None:
            self._maybe_fail()
            progress.is_up_to_date = True

        progress.look = look

        class Opened:
            def __enter__(self) -> Any:
                return progress

            def __exit__(self, *_: object) -> None:
                pass

        return Opened()

    def _publish(self, bootstrap: str, spec: PipelineSpec, topic: str) -> None:
        self._maybe_fail()
        self.published.append(spec)
        self._maybe_fail()

    def _ask(self, spec: Any, collection: str, filter_: Any, source: Any, bootstrap: str, reason: str) -> RereadsAsked:
        self.done.append(f"ask {collection} {filter_}")
        return RereadsAsked(self.matching, ChangeTopic("p.shop.a", "id", 2), {0: 5, 1: 6})

    def _maybe_fail(self) -> None:
        if self.rng is not None and self.rng.random() < 0.2:
            raise self.rng.choice([Transient("away"), KilledHere("killed")])


class KilledHere(Exception):
    """The process ended here."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_of_the_whole_pipeline(world: World) -> None:
    last = world.steps("follow")
    assert world.done == ["stop", "forget", "ready", "resume"]
    assert not last.holds_connector
    assert [each.desired for each in world.published] == ["running"]
    world.completed, world.waiting = True, ["b"]
    last = world.step(last.memory)  # type: ignore[assignment]
    assert list(last.memory["topics"]) == ["b"]  # the other one is not looked at again
    assert last.message.endswith("waiting for the writer to apply it to b")
    world.waiting = []
    assert world.step(last.memory) == Done("the snapshot is in; 2 tables whole again")


def test_of_collections_the_stream_goes_on(world: World) -> None:
    world.steps("follow", collections=["b"])
    assert world.done == ["ready", "signal b"]
    assert len(world.published) == 1


def test_of_a_collection_whose_table_must_start_anew(world: World) -> None:
    world.must_start_anew = True
    world.steps("follow", collections=["b"])
    assert world.done == ["stop", "ready", "resume", "signal b"]  # and keeps its offsets


def test_the_connector_is_the_controllers_again_as_soon_as_the_tables_are_ready(world: World) -> None:
    world.tasks_run = False
    first = world.step()
    assert isinstance(first, Progress)
    assert first.holds_connector
    waiting = world.step(world.steps("run").memory)
    assert isinstance(waiting, Progress)
    assert (waiting.memory["phase"], waiting.holds_connector) == ("run", False)
    assert world.published == []


def test_a_connector_that_somebody_started_is_stopped_again(world: World) -> None:
    ready = world.steps("ready")
    world.state, world.has_offsets = "RUNNING", True
    again = world.step(ready.memory)
    assert isinstance(again, Progress)
    assert again.memory["phase"] == "stop"
    world.done.clear()
    world.step(world.step(again.memory).memory)  # type: ignore[union-attr]
    assert world.done == ["stop", "forget", "ready"]


def test_rules_that_were_published_meanwhile_are_not_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise InvalidSpec("somebody has published other rules since")

    memory = world.steps("run").memory
    monkeypatch.setattr(module, "publish", refuse)
    with pytest.raises(Transient, match="other rules"):
        world.step(memory)


@pytest.mark.parametrize("desired", ["paused", "stopped"])
def test_it_waits_while_the_pipeline_is_not_to_run(world: World, desired: str) -> None:
    for phase, kept in (("ready", False), ("follow", True)):
        memory = world.steps(phase).memory
        done = list(world.done)
        result = world.step(memory, desired)
        assert isinstance(result, Progress)
        assert (result.message, result.holds_connector) == ("waits for the pipeline to run", False)
        assert result.memory == (memory if kept else {})  # else it begins anew: others may have started the connector
        assert world.done == done


def test_refusals_while_a_task_is_fenced_out_are_waited_out_but_not_for_ever(world: World) -> None:
    stopping = world.step().memory  # type: ignore[union-attr]
    world.refusals = [Fatal("400 wrong request")] * 2
    with pytest.raises(Transient, match="400"):
        world.step(stopping, attempts=3)
    with pytest.raises(Fatal, match="400"):
        world.step(stopping, attempts=20)


def test_a_snapshot_that_never_begins_fails_but_an_outage_of_connect_does_not_count(world: World) -> None:
    memory = world.steps("follow", collections=["a"]).memory
    world.begun = False
    for runs in (True, False, True):
        world.tasks_run = runs
        result = world.step(memory, collections=["a"])
        assert isinstance(result, Progress)
        memory = result.memory
        world.now_s += START_TIMEOUT_S
    world.now_s += 1
    with pytest.raises(Fatal, match="begun no snapshot"):
        world.step(memory, collections=["a"])


def test_by_filter(world: World) -> None:
    asked = {"collections": ["a"], "filter": {"n": {"$gt": 5}}}
    first = world.step(**asked)
    assert isinstance(first, Progress)
    assert (first.message, first.holds_connector) == ("3 documents of a are read again", False)
    assert world.done == ["ask a {'n': {'$gt': 5}}", "close source"]
    second = world.step(first.memory, **asked)
    assert isinstance(second, Progress)
    assert second.memory == json.loads(json.dumps(first.memory))
    world.answered = True
    assert world.step(first.memory, **asked) == Done("3 documents of a were read again")
    assert world.state == "RUNNING"
    world.matching = 0
    assert world.step(**asked) == Done("no document of a matches the filter")


def test_by_filter_not_where_the_table_cannot_read_on(world: World) -> None:
    world.must_start_anew = True
    with pytest.raises(Fatal, match="resync the whole collection"):
        world.step(collections=["a"], filter={"n": 1})
    waits = world.step(desired="stopped", collections=["a"], filter={"n": 1})
    assert isinstance(waits, Progress)
    assert world.done == []


@pytest.mark.parametrize("number", range(100))
def test_whatever_fails_or_dies_it_comes_to_its_end(world: World, number: int) -> None:
    """At any call, also after it was done; a process that dies takes what the step returned with it."""
    seed = SEED + number
    print(f"seed: {seed}")
    rng = random.Random(seed)
    world.rng = rng
    world.must_start_anew = rng.random() < 0.5
    wanted = rng.choice([[], ["a"], ["a", "b"]])
    memory: Mapping[str, Any] = {}
    for _ in range(500):
        world.tasks_run = rng.random() < 0.8
        if world.begun and rng.random() < 0.5:
            world.completed, world.waiting = True, []
        try:
            result = world.step(memory, rng.choice(["running"] * 9 + ["paused"]), collections=wanted)
        except (KilledHere, Transient):
            continue
        if isinstance(result, Done):
            break
        if rng.random() < 0.8:
            memory = result.memory
        if not result.holds_connector and world.state == "STOPPED":
            world.run()  # the controller does what is wanted
    else:
        raise AssertionError("it did not end within 500 steps")
    assert world.state == "RUNNING"
    assert world.completed
    assert world.published
    assert "ready" in world.done
    assert not wanted or any(each.startswith("signal") for each in world.done)
