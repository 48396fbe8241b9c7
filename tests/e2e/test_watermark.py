"""The watermark of a table, from MongoDB through Debezium: it rises when nothing happens, and never claims too much."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

import pytest
from delta_reading import open_table
from mongo_pipeline import MongoPipeline
from waiting import wait_until

from cdc_shared.analytics.duckdb_client import as_of_sql, connect
from cdc_shared.kafka.topics import topic_id
from cdc_shared.models.common import SENTINEL_COLLECTION, WatermarkSpec

pytestmark = pytest.mark.e2e

DOCUMENTS = 50
MOMENTS = 2
FIRST_TIMEOUT_S = 60.0
RISE_TIMEOUT_S = 30.0


class Change(NamedTuple):
    """The document with this id was changed to this `n` not later than this time in the source."""

    operation_time_ms: int
    id: int
    n: int


class History:
    """Changes documents at random, as fast as the source takes them, and notes when each was there."""

    def __init__(self, pipeline: MongoPipeline) -> None:
        self._pipeline = pipeline
        self._stop = threading.Event()
        self.changes: list[Change] = []

    @contextmanager
    def being_made(self) -> Iterator[History]:
        """Change documents until the block ends."""
        thread = threading.Thread(target=self._write)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _write(self) -> None:
        collection = self._pipeline.db["items"]
        n = 0
        with collection.database.client.start_session() as session:
            while not self._stop.is_set():
                n += 1
                which = n * 7919 % DOCUMENTS
                collection.update_one({"_id": which}, {"$set": {"n": n}}, upsert=True, session=session)
                assert session.operation_time is not None
                self.changes.append(Change(session.operation_time.time * 1000, which, n))

    def missing(self, time_ms: int) -> list[Change]:
        """What happened before the time and is not in the table as of it."""
        settings, url = self._pipeline.stack.object_store, self._pipeline.table_url("items")
        with connect(settings) as duckdb:
            as_of = as_of_sql(settings, url, datetime.fromtimestamp(time_ms / 1000, UTC))
            found = dict(duckdb.execute(f"SELECT _id, n FROM {as_of}").fetchall())
        return [each for each in self.changes if each.operation_time_ms < time_ms and found.get(each.id, 0) < each.n]


def rises(pipeline: MongoPipeline, count: int) -> list[tuple[float, int]]:
    """Wait for so many rises of the watermark; return when each was seen (wall clock, s), and what it was (ms)."""
    seen: list[tuple[float, int]] = []

    def risen() -> bool:
        pipeline.check_running()
        now_ms = pipeline.watermark_ms("items")
        if now_ms is not None and (not seen or now_ms > seen[-1][1]):
            seen.append((time.time(), now_ms))
        return len(seen) > count

    wait_until(risen, FIRST_TIMEOUT_S, f"the watermark has risen {count} times", poll_s=0.2)
    return seen


def test_it_rises_in_a_quiet_database_and_holds_under_load(
    new_pipeline: Callable[..., MongoPipeline], measured: Callable[[str, float, str], None]
) -> None:
    """Attacks I12; of two partitions, and with a list of collections, which does not name the sentinel's."""
    pipeline = new_pipeline(start=False, partitions=2)
    source = pipeline.spec.source.model_copy(update={"include_collections": ("items",)})
    pipeline.spec = pipeline.spec.model_copy(update={"source": source})
    pipeline.start()
    pipeline.db["items"].insert_one({"_id": -1, "n": 0})
    wait_until(lambda: pipeline.watermark_ms("items") is not None, FIRST_TIMEOUT_S, "the table has a watermark")
    seen = rises(pipeline, 2)
    pauses = [later - sooner for (sooner, _), (later, _) in pairwise(seen)]
    measured("watermark, quiet: longest pause between rises", max(pauses), "s")
    measured("watermark, quiet: highest age when seen", max(at - ms / 1000 for at, ms in seen), "s")
    assert max(pauses) < 10
    checked = 0
    with History(pipeline).being_made() as history:
        for _ in range(MOMENTS):
            ((_, time_ms), *_) = rises(pipeline, 1)[1:]
            before = sum(each.operation_time_ms < time_ms for each in history.changes)
            checked += before
            assert history.missing(time_ms) == []
    measured("watermark, under load: changes compared", checked, "changes")
    assert checked
    assert topic_id(pipeline.admin, pipeline.topic(SENTINEL_COLLECTION)).partitions == 1
    assert open_table(pipeline.table_url(SENTINEL_COLLECTION), pipeline.stack.object_store) is None


def test_it_rises_where_the_source_may_not_be_written(new_pipeline: Callable[..., MongoPipeline]) -> None:
    """Attacks I12: the connector's committed position tells the time."""
    pipeline = new_pipeline(start=False, connector={"heartbeat.interval.ms": "1000"})
    pipeline.spec = pipeline.spec.model_copy(update={"watermark": WatermarkSpec(source="resume_token", interval_s=1)})
    pipeline.start()
    with History(pipeline).being_made() as history:
        wait_until(lambda: len(history.changes) > 100, RISE_TIMEOUT_S, "something happened")
    last_ms = history.changes[-1].operation_time_ms
    wait_until(lambda: (pipeline.watermark_ms("items") or 0) > last_ms, FIRST_TIMEOUT_S, "it rises with nothing to do")
    assert history.missing(pipeline.watermark_ms("items") or 0) == []
    assert pipeline.db.list_collection_names() == ["items"]
