"""Where a table must start anew, and that its old rows, writers and offsets cannot be taken for the new ones."""

import pytest

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import CLOSED, ChangeTopic, Fenced, app_id, swept_id
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import ResyncNeeded
from cdc_shared.resync.new_start import plan_new_start, start_anew
from cdc_shared.snapshots.table_state import gap_before, has_gap
from delta_writer.writer.tables import WRITERS

pytestmark = pytest.mark.unit

TOPIC = ChangeTopic("p.db.things", "topic-id", 1)  # as the driver of tables has it
MADE_AGAIN = ChangeTopic("p.db.things", "another-id", 1)
REPARTITIONED = ChangeTopic("p.db.things", "topic-id", 3)
IDENTITY = TableIdentity("p", "db", "things")
SINCE = "notifications:7"


@pytest.fixture(params=["deletion_vectors", "copy_on_write"])
def table(new_table, request):
    """A table that stands at offset 4."""
    table = new_table(mode=request.param)
    table.apply(table.open(), [(n, {"n": n}) for n in range(4)])
    return table


def state(table):
    return DeltaLog(table.store).load()


def anew(table, topic, held):
    location = TableLocation(table.url, table.store, {})
    return start_anew(location, IDENTITY, table.mode, topic, held, SINCE)


def open_on(table, topic):
    return WRITERS[table.mode](TableLocation(table.url, table.store, {}), IDENTITY, topic, table.cache_dir)


@pytest.mark.parametrize("held", [{0: (0, 4)}, {0: (4, 4)}, {0: (2, 100)}])
def test_a_table_that_can_read_on_is_left_alone(table, held):
    before = state(table).version
    assert anew(table, TOPIC, held) is None
    assert state(table).version == before
    assert not has_gap(state(table), TOPIC)


@pytest.mark.parametrize(
    ("topic", "held", "offsets", "reason"),
    [
        (TOPIC, {0: (9, 20)}, {0: 9}, "retention"),
        (TOPIC, {0: (0, 2)}, {0: 2}, "lost records"),
        (MADE_AGAIN, {0: (3, 9)}, {0: 3}, "made again"),
        # Keys have moved: what lies there is in no key's order, so none of it is read.
        (REPARTITIONED, {0: (0, 5), 1: (0, 1), 2: (0, 0)}, {0: 5, 1: 1, 2: 0}, "3"),
    ],
)
def test_it_starts_where_reading_can_go_on(table, topic, held, offsets, reason):
    start = anew(table, topic, held)
    assert start.offsets == offsets
    assert reason in start.reason
    now = state(table)
    assert {p: now.txns[app_id(topic, p)] for p in offsets} == offsets
    assert has_gap(now, topic)
    assert gap_before(now, topic, "notifications") == 7
    assert gap_before(now, topic, "a notification topic made later") == 0
    assert len(table.rows()) == 4  # readers keep what there was
    assert plan_new_start(now, topic, held) is None  # it is done once
    writer = open_on(table, topic)
    assert [writer.next_offset(p, *held[p]) for p in offsets] == list(offsets.values())


def test_rows_of_before_and_after_are_told_apart(table):
    """Attacks I9: offset 3 of the topic made again is not offset 3 of before."""
    anew(table, MADE_AGAIN, {0: (0, 9)})
    writer = open_on(table, MADE_AGAIN)
    table.next_offset = table.committed = 0
    table.apply(writer, [(2, {"n": 20}), (9, {"n": 90})])
    rows = {row["n"]: (row["_cdc_partition"], row["_cdc_offset"]) for row in table.rows()}
    assert rows == {0: (0, 0), 1: (0, 1), 3: (0, 3), 20: (1, 0), 90: (1, 1)}


def test_a_zombie_of_the_topic_that_is_no_more_writes_nothing(table):
    """Attacks I2: its fence would hold, were its topic's offset not closed."""
    zombie = table.open()
    batch = table.encode(zombie, table.batch([(1, {"n": -1})]))
    anew(table, MADE_AGAIN, {0: (0, 9)})
    with pytest.raises(Fenced):
        zombie.commit(batch)
    assert state(table).txns[app_id(TOPIC, 0)] == CLOSED
    started_again = table.open()
    with pytest.raises(ResyncNeeded):
        started_again.next_offset(0, 0, 10)


def test_a_batch_in_hand_is_fenced(table):
    """Attacks I2."""
    writer = table.open()
    table.next_offset = 4
    batch = table.encode(writer, table.batch([(1, {"n": -1})]))
    anew(table, TOPIC, {0: (0, 2)})
    with pytest.raises(Fenced):
        writer.commit(batch)


def test_the_gap_ends_with_a_sweep_above_the_new_base(table):
    anew(table, MADE_AGAIN, {0: (0, 9)})
    now = state(table)
    now.txns[swept_id(MADE_AGAIN, 0)] = 5  # of before
    assert has_gap(now, MADE_AGAIN)
    now.txns[swept_id(MADE_AGAIN, 1)] = 0
    assert not has_gap(now, MADE_AGAIN)
    assert gap_before(now, MADE_AGAIN, "notifications") is None


def test_it_may_happen_again(table):
    anew(table, MADE_AGAIN, {0: (0, 9)})
    third = ChangeTopic("p.db.things", "third-id", 2)
    assert anew(table, third, {0: (0, 9), 1: (0, 3)}).offsets == {0: 9, 1: 3}
    now = state(table)
    assert now.metadata.configuration["cdc.partitionBase"] == "2"
    assert now.txns[app_id(MADE_AGAIN, 0)] == CLOSED


def test_a_table_yet_to_be_needs_no_new_start(new_table):
    assert anew(new_table(), TOPIC, {0: (5, 9)}) is None
