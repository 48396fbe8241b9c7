"""All times are UTC, whatever the time zone of the writer's machine or of the reader's."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pytest
from bson import DatetimeMS
from debezium_events import event_key, event_value
from delta_reading import READERS, query_with_duckdb
from topic_pipeline import TopicPipeline

from cdc_shared.documents import canonical_document, key_text

pytestmark = pytest.mark.integration

WRITER_ZONES: Final = ("America/New_York", "Asia/Kathmandu")
READER_ZONE: Final = "Pacific/Kiritimati"
YEAR_1_MS: Final = -62_135_596_800_000
YEAR_10000_MS: Final = 253_402_300_800_000
MOMENTS_MS: Final = {
    "now and here": 1_709_210_096_789,
    "1970": 0,
    "before 1970": -1,
    "long before 1970": -2_203_891_200_001,
    "before there were time zones": -12_219_292_800_001,
    "year 1": YEAR_1_MS,
    "the end of 9999": YEAR_10000_MS - 1,
    "New York sets its clocks forward": 1_710_054_000_000,
    "New York sets its clocks back, the hour that comes twice": 1_730_611_800_000,
    "Kathmandu moved by 15 minutes": 504_901_800_000,
}
BEYOND_MS: Final = {
    "before year 1": YEAR_1_MS - 1,
    "year 10000": YEAR_10000_MS,
    "smallest": -(2**63),
    "largest": 2**63 - 1,
}
SOURCE_TS_MS: Final = (0, 1, 1_500_000_000_123, 1_710_054_000_000, 1_730_611_800_999, 4_102_444_800_000)
CONNECT_TS_MS: Final = 1_600_000_000_000
DAYS: Final = """SELECT DISTINCT CAST(CAST("when" AS DATE) AS VARCHAR) AS day FROM t WHERE ms IN (0, -1) ORDER BY day"""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def test_dates_are_the_same_instants_for_writers_and_readers_of_every_zone(
    new_topic_pipeline: Callable[..., TopicPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = new_topic_pipeline(start=False)
    pipeline.items.make_topic()
    pipeline.publish()
    for zone in WRITER_ZONES:
        pipeline.start_writer({"TZ": zone})
        pipeline.items.insert(*(dated(f"{zone}: {name}", ms) for name, ms in (MOMENTS_MS | BEYOND_MS).items()))
        pipeline.items.insert(*(dated(DatetimeMS(ms), ms) for ms in MOMENTS_MS.values()))  # also in the key
        pipeline.items.await_equal()
        check_log_times(pipeline)
        pipeline.writer.stop()

    here = {name: read(pipeline.items.url, pipeline.stack.object_store) for name, read in READERS.items()}
    with reader_process(monkeypatch, READER_ZONE) as elsewhere:
        there = {name: elsewhere.submit(read, *place(pipeline)) for name, read in READERS.items()}
        for name, rows in here.items():
            check_dates(rows)
            assert by_key(rows) == by_key(there[name].result()), f"{name} in {READER_ZONE}"
        days = elsewhere.submit(query_with_duckdb, *place(pipeline), DAYS).result()
    assert days.to_pylist() == [{"day": "1969-12-31"}, {"day": "1970-01-01"}]


def test_the_time_of_a_row_is_the_sources(topic_pipeline: TopicPipeline) -> None:
    """Not Connect's (`ts_ms` of the envelope), nor Kafka's, nor the writer's."""
    items = topic_pipeline.items
    for n, ts_ms in enumerate(SOURCE_TS_MS):
        document = {"_id": n, "n": n}
        value = event_value(
            "c", document, pipeline=topic_pipeline.name, database=topic_pipeline.name, collection="items", ts_ms=ts_ms
        )
        envelope = json.loads(value) | {"ts_ms": CONNECT_TS_MS, "ts_us": CONNECT_TS_MS * 1000}
        items.model[key_text(n)] = canonical_document(document)
        items.send(event_key(n), json.dumps(envelope).encode(), changes_a_row=True)
    items.await_equal()
    for name, read in READERS.items():
        rows = read(*place(topic_pipeline))
        assert rows.schema.field("_cdc_source_ts").type.tz == "UTC", name
        shown = dict(zip(rows["_id"].to_pylist(), rows["_cdc_source_ts"].to_pylist(), strict=True))
        assert shown == {n: moment(ts_ms) for n, ts_ms in enumerate(SOURCE_TS_MS)}, name


def dated(id: Any, ms: int) -> dict[str, Any]:
    """A document with the moment in every place that a date may have."""
    when = DatetimeMS(ms)
    return {
        "_id": id,
        "ms": ms,
        "when": when,
        "within": {"when": when},
        "array": [when, None],
        "objects": [{"w": when}],
    }


def moment(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def place(pipeline: TopicPipeline) -> tuple[str, Any]:
    return pipeline.items.url, pipeline.stack.object_store


def check_dates(rows: pa.Table) -> None:
    """Every date that a column can hold is there, at its instant; every other one is rescued."""
    for row in rows.to_pylist():
        held = YEAR_1_MS <= row["ms"] < YEAR_10000_MS
        when = moment(row["ms"]) if held else None
        assert (row["when"], row["within"]["when"]) == (when, when), row["_id"]
        assert row["array"] == ([when, None] if held else None), row["_id"]
        date = {"$date": {"$numberLong": str(row["ms"])}}
        rescued = json.loads(row["_cdc_rescued"] or "{}")
        beyond = {"/when": date, "/within/when": date, "/array": [date, None], "/objects": [{"w": date}]}
        assert {name: value for name, value in rescued.items() if name != "/_id"} == ({} if held else beyond), row[
            "_id"
        ]


def by_key(rows: pa.Table) -> dict[str, Any]:
    return {row["_cdc_key"]: row for row in rows.to_pylist()}


def reader_process(monkeypatch: pytest.MonkeyPatch, zone: str) -> ProcessPoolExecutor:
    """A process whose machine is in that time zone."""
    monkeypatch.setenv("TZ", zone)
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def check_log_times(pipeline: TopicPipeline) -> None:
    """The writer's log says when in UTC too."""
    times = [event["timestamp"] for event in pipeline.writer.log_events() if "timestamp" in event]
    assert times
    for each in times:
        assert abs(datetime.now(UTC) - datetime.fromisoformat(each)) < timedelta(minutes=5), each
