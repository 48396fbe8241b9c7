"""What a pipeline says of itself while it works."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_pipeline import LocalPipeline

from cdc_shared.errors import Fatal
from cdc_shared.kafka.status_topic import PartitionReport, decode_report, encode_report
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.models.data_quality import QualitySpec
from delta_writer.pipeline_status import PipelineStatus
from delta_writer.reporting.progress import PipelineProgress, TableProgress
from delta_writer.reporting.recent_rate import WINDOW_S, RecentRate
from delta_writer.reporting.table_watch import TableWatch

pytestmark = pytest.mark.unit

NOW_S = 1_700_000_000.0
RUNNING = PipelineStatus(PipelineState.RUNNING)
TOPIC = "p.db.things"
THINGS = TableProgress(TOPIC, "db", "things", table_version=3, schema_version=2, table_bytes=9, watermark_ms=5)


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = RecentRate(0.0)
    rate.add(10, 0.2)
    assert rate.per_s(0.2) == 10, "of the first second as a whole"
    rate.add(10, 0.9)
    rate.add(40, 9.5)
    assert rate.per_s(10.0) == 6.0
    assert rate.per_s(59.9) == pytest.approx(1.0, rel=0.01)
    assert rate.per_s(WINDOW_S) == pytest.approx(40 / WINDOW_S)
    rate.add(600, 200.0)
    assert rate.per_s(200.0) == 10.0
    assert rate.per_s(1000.0) == 0.0
    for second in range(2000, 3000):
        rate.add(5, float(second))
    assert rate.per_s(2999.0) == 5.0


def test_each_collection_is_told_of_with_what_was_counted_and_where_its_table_stands() -> None:
    clock = Clock()
    progress = PipelineProgress("shop", clock)
    progress.came_round({(TOPIC, 1): 20, (TOPIC, 0): 10}, {(TOPIC, 0): 4, (TOPIC, 1): 0})
    progress.tables([THINGS])
    clock.now_s += 10
    progress.committed(TOPIC, 600, int((NOW_S + 8) * 1000))
    progress.committed(TOPIC, 600, int((NOW_S + 7) * 1000))
    progress.rescued(TOPIC, 3)
    progress.rejected(TOPIC, "rule age", dead_lettered=True)
    progress.rejected(TOPIC, "rule name", dead_lettered=False)
    report = progress.report(RUNNING, "w", 4)
    assert (report.pipeline, report.writer, report.rules_version) == ("shop", "w", 4)
    (things,) = report.collections
    assert things.partitions == (
        PartitionReport(partition=0, offset=10, lag=4),
        PartitionReport(partition=1, offset=20, lag=0),
    )
    assert (things.events, things.events_per_s, things.rescued) == (1200, 120.0, 3)
    assert (things.rejected, things.dead_letters, things.last_rejection) == (2, 1, "rule name")
    assert things.event_ms == int((NOW_S + 8) * 1000), "an older event does not take it back"
    assert things.latency_ms == 3000
    assert (things.watermark_ms, things.table_version, things.schema_version) == (5, 3, 2)
    clock.now_s += 2 * WINDOW_S
    later = progress.report(RUNNING, "w", 4)
    assert (later.collections[0].events, later.collections[0].events_per_s) == (1200, 0.0)
    assert decode_report(encode_report(later)) == later


def test_a_partition_that_went_to_another_writer_takes_the_watermark_with_it() -> None:
    progress = PipelineProgress("shop", Clock())
    progress.tables([THINGS])
    progress.came_round({(TOPIC, 0): 10}, {})
    assert progress.report(RUNNING, "w", 0).collections[0].watermark_ms == 5
    progress.committed(TOPIC, 1, 1)
    progress.came_round({}, {})
    (things,) = progress.report(RUNNING, "w", 0).collections
    assert (things.partitions, things.watermark_ms, things.events) == ((), None, 1)


def test_the_last_error_stays_to_be_seen_when_all_is_well_again() -> None:
    clock = Clock()
    progress = PipelineProgress("shop", clock)
    assert progress.report(RUNNING, "w", 0).last_error is None
    progress.retried("the store is away")
    clock.now_s += 60
    report = progress.report(RUNNING, "w", 0)
    assert report.retries == 1
    assert report.last_error is not None
    assert (report.last_error.text, report.last_error.at_ms) == ("the store is away", int(NOW_S * 1000))
    progress.failed("it cannot go on")
    again = progress.report(RUNNING, "w", 0).last_error
    assert again is not None
    assert again.text == "it cannot go on"


def test_a_pipeline_that_runs_says_what_it_did(tmp_path: Path) -> None:
    """Through the real pipeline, on a local table."""
    run = LocalPipeline(tmp_path)
    rules = {"validation": [{"rule": "required", "path": "/name", "on_failure": "dlq"}]}
    run.spec = run.spec.model_copy(update={"quality": QualitySpec.model_validate(rules)})
    for key in range(5):
        run.kafka.send(str(key), "c", {"_id": key, "name": "x"})
    run.kafka.send("9", "c", {"_id": 9})
    run.go()
    tables = run.tables()
    tables.start_offset(TOPIC, 0, lambda: (0, 6))
    TableWatch(run.observer.progress).turn(tables.opened, [(TOPIC, 0)])
    report = run.observer.progress.report(run.observer.status, "w", run.quality.version)
    (things,) = report.collections
    assert (things.database, things.collection, things.topic) == ("db", "things", TOPIC)
    assert (things.events, things.rejected, things.dead_letters) == (6, 1, 1)
    assert things.table_version == tables.opened[TOPIC].writer.version >= 0
    assert things.schema_version == 1
    assert things.table_bytes == sum(path.stat().st_size for path in Path(run.root).rglob("things/*.parquet"))
    assert things.partitions[0].offset + things.partitions[0].lag == 6
    assert report.turn_ms is not None
    assert report.since_ms is not None
    run.observer.failed(Fatal("no more"))
    failed = run.observer.progress.report(run.observer.status, "w", 0)
    assert (failed.state, failed.reason) == (PipelineState.FAILED, "no more")
    assert failed.last_error is not None
    assert failed.last_error.text == "no more"
