"""Tables as they were: at a time in the source, and at a version, after updates and deletes."""

from datetime import UTC, datetime

import pytest
from mongo_pipeline import MongoPipeline
from shop_questions import in_sql, lake_of
from waiting import wait_until

from cdc_shared.analytics.query_errors import NoSuchVersion
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.time_travel import NoSuchMoment
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.integration

WATERMARK_TIMEOUT_S = 60.0
SQL = "SELECT _id, n FROM {orders} ORDER BY _id"


def settled_ms(pipeline: MongoPipeline, operation_ms: int) -> int:
    """The watermark of the table once it has passed a time in the source."""
    wait_until(
        lambda: (pipeline.watermark_ms("orders") or 0) > operation_ms,
        WATERMARK_TIMEOUT_S,
        "the watermark has passed it",
    )
    watermark_ms = pipeline.watermark_ms("orders")
    assert watermark_ms is not None
    return watermark_ms


def test_a_table_is_read_as_it_was_at_a_time_in_mongodb_and_at_a_version(pipeline: MongoPipeline) -> None:
    orders = pipeline.db["orders"]
    with pipeline.db.client.start_session() as session:
        orders.insert_many([{"_id": number, "n": 0} for number in range(4)], session=session)
        assert session.operation_time is not None
        before_ms = settled_ms(pipeline, session.operation_time.time * 1000)
        settled_ms(pipeline, before_ms)  # no version for that time has anything of what comes after this
        with lake_of(pipeline) as lake:
            [table] = [each for each in lake.tables() if each.pipeline == pipeline.name]  # other tests have theirs
            assert (table.database, table.name) == (pipeline.database, "orders")
        store = open_store(pipeline.table_url("orders"), pipeline.stack.object_store)
        version = DeltaLog(store).readable_versions()[-1]
        orders.update_one({"_id": 1}, {"$set": {"n": 7}}, session=session)
        orders.delete_one({"_id": 2}, session=session)
        orders.insert_one({"_id": 9, "n": 9}, session=session)
        settled_ms(pipeline, session.operation_time.time * 1000)
    pipeline.await_equal("orders")
    sql = in_sql(pipeline, SQL)
    then = [(0, 0), (1, 0), (2, 0), (3, 0)]

    with lake_of(pipeline) as lake:

        def rows(as_of: datetime | int | None = None) -> list[tuple[int, int]]:
            return [(row["_id"], row["n"]) for row in lake.query(sql, as_of).to_pylist()]

        assert rows() == [(0, 0), (1, 7), (3, 0), (9, 9)]
        assert rows(datetime.fromtimestamp(before_ms / 1000, UTC)) == then
        assert rows(version) == then
        with pytest.raises(NoSuchMoment, match="no watermark before"):
            rows(datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(NoSuchVersion, match="is not there yet: versions 0 to"):
            rows(10_000)
