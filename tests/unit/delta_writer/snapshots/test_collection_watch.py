"""What the source's list of collections says about the tables."""

import threading
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import pytest

from cdc_shared.delta.actions import Metadata, TableFormat
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec, SourceSpec
from delta_writer.snapshots.collection_watch import (
    COLLECTION_UUID,
    REPLACED_BY,
    CollectionChange,
    CollectionWatch,
    SourceState,
)

pytestmark = pytest.mark.unit


class AtOnce(Executor):
    """Runs what is submitted before `submit` returns."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class FakeWriter:
    """A table with properties."""

    version = 0

    def __init__(self):
        metadata = Metadata("id", TableFormat("parquet", {}), "{}", [], {})
        self.snapshot = Snapshot(0, metadata=metadata)

    @property
    def properties(self):
        return self.snapshot.metadata.configuration

    def set_properties(self, properties):
        self.properties.update(properties)


class Rig:
    """A watch over a source that the test changes; `restart` makes a new watch over the same tables."""

    def __init__(self, **source):
        self.spec = PipelineSpec(name="shop", source=SourceSpec(connection="env:X", database="shop", **source))
        self.uuids = {}
        self.notifications = 0
        self.error = None
        self.swept = {}
        self.tables = {}
        self.restart()

    def restart(self):
        self.found = []
        self.reports = 0
        self.watch = CollectionWatch(
            self.spec, self._look, self._is_swept_since, self._report, 0.0, clock=lambda: 0.0, executor=AtOnce()
        )

    def table(self, name):
        table = SimpleNamespace(writer=FakeWriter(), collection=Collection("shop", name))
        self.tables[f"shop.shop.{name}"] = table
        return table.writer

    def look(self):
        """One look; return what is found, as (collection, change)."""
        for _ in range(2):
            self.watch.turn(self.tables, [(topic, 0) for topic in self.tables])
        return [(each.collection, each.change) for each in self.found]

    def _look(self):
        if self.error is not None:
            raise self.error
        return SourceState(dict(self.uuids), self.notifications)

    def _is_swept_since(self, topic, table, notification):
        return self.swept.get(topic, -1) >= notification

    def _report(self, findings):
        self.found, self.reports = list(findings), self.reports + 1


@pytest.fixture
def rig():
    rig = Rig()
    rig.uuids = {"a": "u1", "b": "u2"}
    rig.table("a"), rig.table("b")
    assert rig.look() == []
    return rig


def test_the_uuid_is_remembered_in_the_table(rig):
    assert [each.writer.properties for each in rig.tables.values()] == [
        {COLLECTION_UUID: "u1"},
        {COLLECTION_UUID: "u2"},
    ]
    assert rig.reports == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_drop_is_reported_once_also_after_a_restart(rig, restarted):
    del rig.uuids["a"]
    if restarted:
        rig.restart()
    assert [rig.look() for _ in range(3)] == [[("a", CollectionChange.DROPPED)]] * 3
    assert rig.reports == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_rename_is_known_by_the_uuid(rig, restarted):
    rig.uuids = {"c": "u1", "b": "u2"}
    if restarted:
        rig.restart()
    found = rig.look()
    assert ("a", CollectionChange.RENAMED) in found
    assert "delta-writer resync shop --collection c" in rig.found[0].text


def test_a_collection_that_came_by_a_rename_is_reported_until_a_snapshot_has_it(rig):
    rig.uuids = {"a": "u1", "b": "u2", "uncaptured": "u3"}
    rig.look()
    rig.uuids = {"a": "u1", "b": "u2", "c": "u3"}
    rig.notifications = 5
    assert rig.look() == [("c", CollectionChange.RENAMED_INTO)]
    rig.table("c")  # its first change came through the stream: the documents before it are still missing
    rig.notifications = 9
    assert rig.look() == [("c", CollectionChange.MADE_AGAIN)]
    rig.swept["shop.shop.c"] = 4
    assert rig.look() == [("c", CollectionChange.MADE_AGAIN)]
    rig.swept["shop.shop.c"] = 5
    assert rig.look() == []
    rig.restart()
    assert rig.look() == []


def test_a_re_creation_is_reported_until_a_snapshot_begun_later_is_swept(rig):
    rig.uuids["a"], rig.notifications = "u9", 40
    rig.swept["shop.shop.a"] = 39
    assert rig.look() == [("a", CollectionChange.MADE_AGAIN)]
    assert "delta-writer resync shop --collection a" in rig.found[0].text
    rig.notifications = 60
    rig.restart()  # what was seen first is remembered
    assert rig.look() == [("a", CollectionChange.MADE_AGAIN)]
    rig.swept["shop.shop.a"] = 40
    assert rig.look() == []
    assert rig.tables["shop.shop.a"].writer.properties == {COLLECTION_UUID: "u9", REPLACED_BY: ""}


def test_a_second_re_creation_needs_another_snapshot(rig):
    rig.uuids["a"], rig.notifications = "u9", 40
    rig.look()
    rig.uuids["a"], rig.notifications = "u10", 50
    rig.look()
    rig.swept["shop.shop.a"] = 45
    assert rig.look() == [("a", CollectionChange.MADE_AGAIN)]


def test_a_server_without_uuids_still_shows_drops(rig):
    rig.uuids = {"a": None}
    assert rig.look() == [("b", CollectionChange.DROPPED)]


def test_a_rename_to_a_name_that_is_not_captured_has_no_remedy():
    rig = Rig(include_collections=("a",))
    rig.uuids = {"a": "u1"}
    rig.table("a")
    rig.look()
    rig.uuids = {"z": "u1"}
    assert rig.look() == [("a", CollectionChange.RENAMED)]
    assert "resync" not in rig.found[0].text


@pytest.mark.parametrize("error", [Transient("away"), Fatal("wrong password")])
def test_a_source_that_cannot_be_asked_changes_nothing(rig, error):
    del rig.uuids["a"]
    rig.error = error
    assert rig.look() == []
    rig.error = None
    assert rig.look() == [("a", CollectionChange.DROPPED)]


def test_closing_waits_for_no_source_that_hangs():
    asked, release = threading.Event(), threading.Event()

    def hang():
        asked.set()
        release.wait()
        raise Transient("away")

    spec = PipelineSpec(name="shop", source=SourceSpec(connection="env:X", database="shop"))
    watch = CollectionWatch(spec, hang, lambda *_: False, lambda _: None, 0.0)
    watch.turn({}, [])
    assert asked.wait(30)
    watch.close()
    (thread,) = [each for each in threading.enumerate() if each.name == "collections"]
    assert thread.daemon  # so the interpreter does not wait for it either
    release.set()
    thread.join(30)
    assert not thread.is_alive()
