"""What is published, as the controller knows it: read once more, the topic may be another one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from waiting import wait_until

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.spec_topic import SpecChange, SpecReader
from cdc_shared.models.common import PipelineSpec, SourceSpec
from control_plane.controller import published_specs
from control_plane.controller.published_specs import PublishedSpecs

pytestmark = pytest.mark.unit

TIMEOUT_S = 10.0


def spec(name: str, database: str = "db") -> PipelineSpec:
    return PipelineSpec(name=name, source=SourceSpec(connection="env:X", database=database))


class FakeReader:
    """One life of the topic: gives its changes, tells of its end, and breaks when it is told to."""

    def __init__(self, *changes: SpecChange) -> None:
        self._changes = list(changes)
        self.caught_up = False
        self.breaks = threading.Event()

    def poll(self, _: float) -> SpecChange | None:
        if self._changes:
            return self._changes.pop(0)
        self.caught_up = True
        if self.breaks.wait(0.001):
            raise Fatal("the topic is gone")
        return None


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[FakeReader]:
    """The topic's lives, in their order."""
    waiting: list[FakeReader] = []

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[FakeReader]:
        if not waiting:
            raise Transient("Kafka is away")
        yield waiting.pop(0)

    monkeypatch.setattr(SpecReader, "open", opened)
    monkeypatch.setattr(published_specs, "AGAIN_AFTER_S", 0.001)
    return waiting


def test_what_a_topic_made_anew_does_not_hold_is_published_no_more(lives: list[FakeReader]) -> None:
    """Else the controller takes for published what no writer has, until somebody restarts it."""
    first = FakeReader(SpecChange("shop", spec("shop")), SpecChange("lost", spec("lost")))
    lives.append(first)
    told: list[str] = []
    with PublishedSpecs("nowhere", "specs", told.append) as specs:
        with pytest.raises(Transient):
            specs.current("lost")
        wait_until(lambda: _known(specs, "lost"), TIMEOUT_S, "the topic is read")
        assert told == []
        first.breaks.set()
        lives.append(FakeReader(SpecChange("shop", spec("shop"))))
        wait_until(lambda: specs.current("lost") is None, TIMEOUT_S, "what is gone is forgotten")
        assert specs.current("shop") == spec("shop")
    assert told == ["lost"]


def test_while_kafka_is_away_what_was_read_stays_in_force(lives: list[FakeReader]) -> None:
    first = FakeReader(SpecChange("shop", spec("shop")))
    lives.append(first)
    with PublishedSpecs("nowhere", "specs") as specs:
        wait_until(lambda: _known(specs, "shop"), TIMEOUT_S, "the topic is read")
        first.breaks.set()
        second = FakeReader(SpecChange("shop", spec("shop", "other")))
        wait_until(lambda: specs._trouble != "nothing was read yet", TIMEOUT_S, "Kafka is found to be away")
        assert specs.current("shop") == spec("shop")
        lives.append(second)
        wait_until(lambda: specs.current("shop") == spec("shop", "other"), TIMEOUT_S, "the change is read")


def _known(specs: PublishedSpecs, name: str) -> bool:
    try:
        return specs.current(name) is not None
    except Transient:
        return False
