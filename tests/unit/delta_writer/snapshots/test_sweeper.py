"""Snapshots with attempts that die, deletes that nobody tells, and the sweep that makes up for it."""

import random
import threading
import time
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import pytest

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic, app_id, swept_id
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import Transient
from cdc_shared.models.collection import Collection
from cdc_shared.snapshots.notifications import Notification, NotificationKind, SnapshotHistory
from cdc_shared.snapshots.topic_positions import AttemptBounds
from delta_writer.maintenance.restore import TableRestore
from delta_writer.snapshots import sweeper as sweeper_module
from delta_writer.snapshots.sweeper import Sweeper

pytestmark = pytest.mark.unit

NAME = "db.things"
TOPIC = ChangeTopic("p.db.things", "topic-id", 1)  # as the driver of tables has it


class AtOnce(Executor):
    """Runs what is submitted before `submit` returns."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Connector:
    """Stands for the connector and the topic: notifications, and where each attempt's records begin and end."""

    topic_id = "notifications"
    position = 0

    def __init__(self, table):
        self.history = SnapshotHistory()
        self.caught_up = True
        self.table = table
        self.first = {}
        self.asked = 0
        self.retention_dropped = False
        self.unread_changes = False
        self._offset = 0

    def tell(self, kind, collection=None):
        self.history.add(Notification(self._offset, self._offset, kind, collection, scanned_whole=True))
        self._offset += 1
        return self._offset - 1

    def start(self):
        self.first[self.tell(NotificationKind.STARTED)] = self.table.next_offset
        self.tell(NotificationKind.IN_PROGRESS, NAME)

    def complete(self):
        self.tell(NotificationKind.TABLE_SCAN_COMPLETED, NAME)
        self.tell(NotificationKind.COMPLETED)

    # as NotificationReader and TopicPositions

    def read(self):
        return []

    def bounds(self, topic, started_ms):
        self.asked += 1
        return AttemptBounds(
            {0: None if self.retention_dropped else self.first[started_ms]}, {0: self.table.next_offset}
        )

    def has_change(self, topic, partition, start, end):
        return self.unread_changes

    def close(self):
        pass


def sweeper_for(connector, swept):
    ticks = iter(range(10**6))
    return Sweeper(
        lambda: connector,
        lambda: connector,
        lambda table, result: swept.append(result.rows_removed),
        clock=lambda: float(next(ticks)),
        executor=AtOnce(),
    )


def opened(writer):
    return SimpleNamespace(writer=writer, collection=Collection("db", "things"))


def sweep(sweeper, writer, turns=10, assigned=((TOPIC.name, 0),)):
    for _ in range(turns):
        sweeper.turn({TOPIC.name: opened(writer)}, assigned)
    return sweeper.snapshot_complete(TOPIC.name, opened(writer))


@pytest.fixture(params=["deletion_vectors", "copy_on_write"])
def table(new_table, request):
    return new_table(mode=request.param)


def snapshot(table, writer, connector, source, rng, *, upto=None):
    """Send what the source holds, in batches, up to `upto` documents; nobody tells of what goes on meanwhile."""
    connector.start()
    present = sorted(source)[:upto]
    for start in range(0, len(present), 7):
        table.apply(writer, [(key, source[key]) for key in present[start : start + 7]])
    return present


def test_random_histories_end_equal_to_the_source(table, rng: random.Random):
    """Attacks I9: attempts die anywhere, documents vanish unseen between them, changes go on after the last."""
    writer, connector, swept = table.open(), Connector(table), []
    source = {key: {"n": key} for key in range(60)}
    for _ in range(3):
        snapshot(table, writer, connector, source, rng, upto=rng.randrange(5, 60))  # and dies
        for key in rng.sample(sorted(source), 8):
            del source[key]
        source |= {rng.randrange(100): {"n": -1} for _ in range(4)}
    snapshot(table, writer, connector, source, rng)
    sweeper = sweeper_for(connector, swept)
    assert not sweep(sweeper, writer)
    connector.complete()
    for key in rng.sample(sorted(source), 5):  # the stream goes on before the sweep is done
        table.apply(writer, [(key, None)])
        del source[key]
    assert sweep(sweeper, writer)
    table.model = {key: {"_id": key, **document} for key, document in source.items()}
    table.assert_equals_model(writer)
    version, swept_at = writer.version, writer.snapshot.txns[swept_id(TOPIC, 0)]
    assert swept_at == connector.first[max(connector.first)]
    again = table.open()
    assert sweep(sweeper_for(connector, swept), again)
    assert again.version == version  # it was swept once
    assert len(swept) == 1


def test_a_first_snapshot_leaves_nothing_to_sweep(table, rng: random.Random):
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}}, rng)
    connector.complete()
    version = writer.version
    assert sweep(sweeper_for(connector, swept), writer)
    assert writer.version == version


def test_nothing_is_deleted_before_the_whole_attempt_is_in(table, rng: random.Random):
    """Attacks I9: rows whose newer version is still in Kafka are not missing, only late."""
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}, 2: {"n": 2}}, rng, upto=2)
    connector.start()
    unread = table.batch([(1, {"n": 10})])
    connector.complete()
    connector.unread_changes = True
    sweeper = sweeper_for(connector, swept)
    assert not sweep(sweeper, writer)
    assert len(table.rows()) == 2
    table.commit(writer, unread)
    assert sweep(sweeper, writer)
    assert [row["n"] for row in table.rows()] == [10]


def test_what_ends_the_topic_and_changes_no_row_is_not_waited_for(table, rng: random.Random):
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}}, rng)
    snapshot(table, writer, connector, {}, rng)
    connector.complete()
    table.next_offset += 3  # markers and tombstones
    assert sweep(sweeper_for(connector, swept), writer)
    assert table.rows() == []


def test_where_kafka_no_longer_tells_the_beginning_nothing_is_deleted(table, rng: random.Random):
    """Attacks I9: with the attempt's first records gone from Kafka, older rows cannot be told from its own."""
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}}, rng)
    snapshot(table, writer, connector, {2: {"n": 2}}, rng)
    connector.complete()
    connector.retention_dropped = True
    assert sweep(sweeper_for(connector, swept), writer)
    assert len(table.rows()) == 2


def test_who_does_not_read_partition_0_waits_for_who_does(table, rng: random.Random):
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}}, rng)
    snapshot(table, writer, connector, {}, rng)
    connector.complete()
    other = sweeper_for(connector, [])
    assert not sweep(other, writer, assigned=((TOPIC.name, 1),))
    assert len(table.rows()) == 1
    owner = table.open()
    assert sweep(sweeper_for(connector, swept), owner)
    assert swept == [1]
    assert sweep(other, writer, assigned=((TOPIC.name, 1),))


def test_kafka_being_away_is_transient_and_tried_again(table, rng: random.Random):
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}}, rng)
    snapshot(table, writer, connector, {}, rng)
    connector.complete()
    bounds, failures = connector.bounds, [Transient("away"), Transient("away")]

    def flaky(*args):
        if failures:
            raise failures.pop()
        return bounds(*args)

    connector.bounds = flaky
    sweeper = sweeper_for(connector, swept)
    for _ in range(2):
        sweeper.turn({TOPIC.name: opened(writer)}, [(TOPIC.name, 0)])
        with pytest.raises(Transient):
            sweeper.turn({TOPIC.name: opened(writer)}, [(TOPIC.name, 0)])
    assert sweep(sweeper, writer)
    assert table.rows() == []


def test_the_offset_stays_where_it_was(table, rng: random.Random):
    """Attacks I1, I2: a sweep is no batch."""
    writer, connector, swept = table.open(), Connector(table), []
    snapshot(table, writer, connector, {1: {"n": 1}}, rng)
    snapshot(table, writer, connector, {2: {"n": 1}}, rng)
    connector.complete()
    stands = writer.snapshot.txns[app_id(TOPIC, 0)]
    assert sweep(sweeper_for(connector, swept), writer)
    assert table.open().snapshot.txns[app_id(TOPIC, 0)] == stands
    table.apply(writer, [(3, {"n": 3})])
    assert sorted(row["n"] for row in table.rows()) == [1, 3]


def test_closing_waits_for_no_kafka_that_hangs_and_the_thread_leaves_it():
    connector, asked, release, left = Connector(None), threading.Event(), threading.Event(), []

    def hang():
        asked.set()
        release.wait()
        return connector

    connector.close = lambda: left.append(threading.current_thread().name)
    sweeper = Sweeper(hang, hang, lambda *_: None)
    sweeper.turn({}, [])
    assert asked.wait(30)
    sweeper.close()
    assert left == []
    (thread,) = [each for each in threading.enumerate() if each.name == "sweep"]
    assert thread.daemon  # so the interpreter does not wait for it either
    release.set()
    thread.join(30)
    assert left == ["sweep"]


@pytest.mark.parametrize("interrupted", [None, "killed", "unheard", "restored"])
def test_many_files_are_swept_in_portions_and_marked_with_the_last(new_table, monkeypatch, interrupted):
    """Attacks I3 and I9: whatever happens after the second portion, no row is left when the mark is there."""
    monkeypatch.setattr(sweeper_module, "MAX_FILES_A_COMMIT", 2)
    table = new_table()
    writer, connector, swept = table.open(), Connector(table), []
    for key in range(7):
        table.apply(writer, [(key, {"n": key}), (key + 100, {"n": key})])
    connector.start()
    table.apply(writer, [(key, {"n": -key}) for key in range(7)])
    connector.complete()
    before = writer.version
    sweeper = sweeper_for(connector, swept)
    while len(swept) < 2:
        sweeper.turn({TOPIC.name: opened(writer)}, [(TOPIC.name, 0)])
    assert swept == [2, 2]
    assert writer.version == before + 2
    assert swept_id(TOPIC, 0) not in writer.snapshot.txns
    assert not sweeper.snapshot_complete(TOPIC.name, opened(writer))
    if interrupted == "killed":
        writer, sweeper = table.open(), sweeper_for(connector, swept)
    elif interrupted == "unheard":
        put_unheard(monkeypatch, writer, sweeper)
    elif interrupted == "restored":
        restore = TableRestore(writer.location, TableIdentity("p", "db", "things"), TOPIC, table.mode, time.time)
        restore.apply(restore.plan(before, lambda _: (0, table.next_offset)))
    assert sweep(sweeper, writer, turns=20)
    table.model = {key: {"_id": key, "n": -key} for key in range(7)}
    table.assert_equals_model(writer)
    assert swept_id(TOPIC, 0) in writer.snapshot.txns
    lost = 2 if interrupted == "unheard" else 0  # an entry that is only recognised is not counted
    assert sum(swept) == (11 if interrupted == "restored" else 7) - lost


def put_unheard(monkeypatch, writer, sweeper):
    """Give the sweeper a turn whose log entry arrives, but not the answer."""
    real = DeltaLog.append

    def append(log, version, actions):
        real(log, version, actions)
        raise Transient("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaLog, "append", append)
        with pytest.raises(Transient):
            sweeper.turn({TOPIC.name: opened(writer)}, [(TOPIC.name, 0)])
