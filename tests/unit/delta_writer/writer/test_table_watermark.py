"""The watermark in the log: committed with the offsets that it rests on, never lowered, named by every entry."""

from datetime import UTC, datetime

import pytest
from obstore.store import LocalStore

from cdc_shared.analytics.duckdb_client import as_of_sql, connect
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import Fenced, OffsetRange, watermark_id
from cdc_shared.delta.time_travel import AsOf, NoSuchMoment, version_as_of
from cdc_shared.settings import ObjectStoreSettings

pytestmark = pytest.mark.unit


@pytest.fixture(params=["deletion_vectors", "copy_on_write"])
def table(request, new_table):
    return new_table(request.param)


def commit(table, writer, changes, **watermarks):
    batch = table.batch(changes, must_commit=True)
    batch.watermarks = {0: watermarks["at"]} if watermarks else {}
    return table.commit(writer, batch)


def told(table, version):
    """What the entry's commitInfo says of the watermark."""
    (info,) = (a.commit_info for a in DeltaLog(table.store).read_entry(version) if a.commit_info)
    return info.get("cdcWatermark")


def test_it_comes_with_its_batch_and_stays(table):
    """Attacks I1."""
    writer = table.open()
    assert writer.watermark_ms is None
    first = commit(table, writer, [(1, {"n": 1})])
    second = commit(table, writer, [(1, {"n": 2})], at=5000)
    third = commit(table, writer, [(2, {"n": 3})])
    assert [told(table, each.version) for each in (first, second)] == [None, 5000 if table.mode[0] == "d" else "5000"]
    assert int(told(table, third.version)) == 5000
    assert writer.watermark_ms == table.open().watermark_ms == 5000


def test_it_can_come_alone(table):
    """A quiet table: nothing is read, nothing changes but the time."""
    writer = table.open()
    commit(table, writer, [(1, {"n": 1})])
    before = table.rows()
    result = commit(table, writer, [], at=5000)
    assert told(table, result.version) == 5000
    assert table.rows() == before
    table.assert_equals_model(writer)


def test_it_never_falls(table):
    writer = table.open()
    commit(table, writer, [(1, {"n": 1})], at=5000)
    result = commit(table, writer, [(1, {"n": 2})], at=4000)
    assert int(told(table, result.version)) == 5000
    assert writer.watermark_ms == 5000


def test_without_its_partition_it_is_not_committed(table):
    """Attacks I12: a writer that lost the partition claims nothing for it, not even with an empty range."""
    ours, theirs = table.open(), table.open()
    commit(table, ours, [(1, {"n": 1})])
    zombie = table.batch([], must_commit=True)
    zombie.watermarks = {0: 9000}
    zombie.ranges[0] = OffsetRange(0, 0)
    with pytest.raises(Fenced):
        theirs.commit(table.encode(theirs, zombie))
    assert table.open().watermark_ms is None


def test_a_table_reads_as_of_a_time_in_the_source(table):
    writer = table.open()
    commit(table, writer, [(1, {"n": 1})], at=1000)
    commit(table, writer, [(1, {"n": 2})], at=5000)
    commit(table, writer, [(1, {"n": 3})], at=9000)
    store = LocalStore(table.url)
    assert [version_as_of(store, at).watermark_ms for at in (1000, 4999, 5000, 99_000)] == [1000, 1000, 5000, 9000]
    assert version_as_of(store, 99_000) == AsOf(writer.version, 9000)
    with connect(ObjectStoreSettings()) as duckdb:

        def n_as_of(seconds):
            as_of = as_of_sql(ObjectStoreSettings(), table.url, datetime.fromtimestamp(seconds, UTC))
            return duckdb.execute(f"SELECT n FROM {as_of}").fetchall()

        assert [n_as_of(seconds) for seconds in (1, 4, 5, 100)] == [[(1,)], [(1,)], [(2,)], [(3,)]]
        with pytest.raises(NoSuchMoment, match=f"{table.url} as of 1970-01-01T00:00:00.*no watermark before"):
            n_as_of(0)


def test_the_txn_is_named_after_the_topic_and_its_partition(table):
    writer = table.open()
    commit(table, writer, [(1, {"n": 1})], at=5000)
    assert writer.snapshot.txns[watermark_id(writer.topic, 0)] == 5000
    assert watermark_id(writer.topic, 0) == "cdc-wm:topic-id:0"
