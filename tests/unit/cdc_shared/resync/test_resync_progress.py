"""When a resync is over: not before the connector has told all, and every table holds all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus, TaskStatus
from cdc_shared.delta.offsets import ChangeTopic, app_id, swept_id
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.resync import resync_progress as module
from cdc_shared.resync.resync import ResyncTarget
from cdc_shared.resync.resync_progress import START_TIMEOUT_S, ResyncProgress, follow
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.snapshots.notifications import Notification, NotificationKind, SnapshotHistory
from cdc_shared.snapshots.topic_positions import AttemptBounds

pytestmark = pytest.mark.unit

SINCE = 10
TOPICS = {name: ChangeTopic(f"p.shop.{name}", f"id-{name}", 1) for name in "ab"}
FIRST, END = 40, 100


class World:
    """What the connector tells, and how the tables are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[Notification] = []
        self.history = SnapshotHistory()
        self.caught_up = True
        self.tables = {name: Snapshot(1, None, None) for name in TOPICS}
        self.changes = True
        self.failures: list[Exception] = []
        self.said: list[str] = []
        self.now_s = 0.0
        self.status: ConnectorStatus | None = ConnectorStatus("p", "RUNNING", "", (TaskStatus(0, "RUNNING", ""),))
        self.before_look: Callable[[], None] = lambda: None
        self._offset = SINCE
        positions = SimpleNamespace(
            bounds=lambda topic, started_ms: AttemptBounds({0: FIRST}, {0: END}),
            has_change=lambda *_: self.changes,
            close=lambda: None,
        )
        monkeypatch.setattr(module, "NotificationReader", lambda *_: self)
        monkeypatch.setattr(module, "TopicPositions", lambda *_: positions)
        monkeypatch.setattr(
            module, "table_location", lambda spec, stores, of: SimpleNamespace(url=of.name, store=of.name)
        )
        monkeypatch.setattr(module, "DeltaLog", lambda name: SimpleNamespace(load=lambda: self.tables[name]))

    def tell(self, kind: NotificationKind, collection: str | None = None, offset: int | None = None) -> None:
        self._offset += 1
        at = self._offset if offset is None else offset
        named = None if collection is None else f"shop.{collection}"
        self.told.append(Notification(at, 1000, kind, named, scanned_whole=True))

    def tell_all(self, collections: str = "ab") -> None:
        self.tell(NotificationKind.STARTED)
        for each in collections:
            self.tell(NotificationKind.TABLE_SCAN_COMPLETED, each)
        self.tell(NotificationKind.COMPLETED)

    def fill(self, name: str, *, stands: int = END, swept: int = FIRST) -> None:
        topic = TOPICS[name]
        txns: Mapping[str, int] = {app_id(topic, 0): stands, swept_id(topic, 0): swept}
        self.tables[name] = Snapshot(7, None, None, txns=dict(txns))

    def read(self, timeout_s: float) -> list[Notification]:
        if self.failures:
            raise self.failures.pop(0)
        told, self.told = self.told, []
        for each in told:
            self.history.add(each)
        return told

    def close(self) -> None:
        pass

    def progress(self, **topics: ChangeTopic) -> ResyncProgress:
        spec = PipelineSpec(name="p", source=SourceSpec(connection="env:X", database="shop"))
        target = ResyncTarget(SINCE, topics or TOPICS)
        return ResyncProgress(spec, ObjectStoreSettings(), target, "kafka:1", self.said.append)

    def follow(self, progress: ResyncProgress) -> None:
        def clock() -> float:
            self.now_s += 1
            assert self.now_s < 10_000, "it does not end"
            return self.now_s

        connect = SimpleNamespace(status=lambda name: self.status)
        follow(progress, "p", connect, self.said.append, clock)  # type: ignore[arg-type]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_it_is_over_when_every_table_is_whole(world: World) -> None:
    progress = world.progress()
    world.fill("a")
    progress.look(0)
    assert not progress.begun  # the table alone says nothing: it may be as of the snapshot before
    world.tell_all()
    progress.look(0)
    assert (progress.completed, progress.waiting, progress.is_over) == (True, ["b"], False)
    world.fill("b")
    progress.look(0)
    assert progress.is_over
    assert "shop.b is whole again (version 7)" in world.said


@pytest.mark.parametrize(("stands", "swept"), [(END - 1, FIRST), (END, FIRST - 1)])
def test_a_table_must_hold_the_snapshot_and_nothing_older(world: World, stands: int, swept: int) -> None:
    progress = world.progress(a=TOPICS["a"])
    world.tell_all()
    world.fill("a", stands=stands, swept=swept)
    progress.look(0)
    assert not progress.is_over
    world.changes = False  # what lies between is nothing but markers
    progress.look(0)
    assert progress.is_over == (swept == FIRST)


def test_an_earlier_snapshot_does_not_count(world: World) -> None:
    progress = world.progress(a=TOPICS["a"])
    world.fill("a")
    for offset, kind in enumerate((NotificationKind.STARTED, NotificationKind.TABLE_SCAN_COMPLETED)):
        world.tell(kind, "a", offset=offset)
    world.tell(NotificationKind.COMPLETED, offset=SINCE - 1)
    progress.look(0)
    assert not progress.begun
    assert not progress.is_over


def test_a_snapshot_that_is_begun_again_is_waited_for(world: World) -> None:
    progress = world.progress()
    world.fill("a")
    world.fill("b")
    world.tell_all("a")
    world.tell(NotificationKind.STARTED)
    progress.look(0)
    assert not progress.completed
    world.tell(NotificationKind.ABORTED)
    progress.look(0)
    assert not progress.begun
    world.tell(NotificationKind.COMPLETED)  # of nothing that was begun
    progress.look(0)
    assert not progress.completed
    world.tell_all()
    progress.look(0)
    assert progress.is_over


def test_nothing_is_decided_before_all_is_read(world: World) -> None:
    world.caught_up = False
    progress = world.progress()
    world.fill("a")
    world.fill("b")
    world.tell_all()
    progress.look(0)
    assert not progress.is_over
    world.caught_up = True
    progress.look(0)
    assert progress.is_over


def test_a_collection_that_is_gone_from_the_source_is_not_waited_for(world: World) -> None:
    world.fill("a")
    world.tell_all("a")
    world.follow(world.progress())
    assert "shop.b is not in the source any more: its table stays as it is" in world.said


def test_what_is_away_is_waited_out(world: World) -> None:
    world.failures = [Transient("Kafka is away")] * 3
    world.tell_all("a")
    world.fill("a")
    world.follow(world.progress(a=TOPICS["a"]))
    assert world.said.count("waiting: Kafka is away") == 3


def test_a_connector_that_has_failed_ends_it(world: World) -> None:
    world.status = ConnectorStatus("p", "RUNNING", "", (TaskStatus(0, "FAILED", "no oplog"),))
    with pytest.raises(Fatal, match="no oplog"):
        world.follow(world.progress())
    world.status = None
    with pytest.raises(Fatal, match="was removed"):
        world.follow(world.progress())


def test_a_connector_that_does_not_begin_ends_it(world: World) -> None:
    with pytest.raises(Transient, match="begun no snapshot within 180 s"):
        world.follow(world.progress())
    assert world.now_s > START_TIMEOUT_S
