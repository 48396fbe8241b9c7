"""What writers report through `cdc.status` of pipelines that run, are stopped by their spec, and are taken back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from status_reports import last_reports
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.kafka.status_topic import CollectionReport, StatusReader, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState

pytestmark = pytest.mark.integration

TIMEOUT_S = 30.0


@pytest.fixture
def reader(topic_pipeline: TopicPipeline) -> Iterator[StatusReader]:
    with StatusReader(topic_pipeline.stack.kafka) as reader:
        assert reader.wait_caught_up(TIMEOUT_S)
        yield reader


def reports(reader: StatusReader, pipeline: TopicPipeline) -> dict[str, WriterReport]:
    return {each.report.writer: each.report for each in reader.reports(pipeline.name)}


def items(report: WriterReport) -> CollectionReport:
    return next(each for each in report.collections if each.collection == "items")


def desire(pipeline: TopicPipeline, desired: str) -> None:
    pipeline.publish(pipeline.spec.model_copy(update={"desired": desired}))


@pytest.mark.timeout(120)
def test_a_pipeline_is_reported_stopped_and_started_by_its_spec(
    topic_pipeline: TopicPipeline, reader: StatusReader
) -> None:
    pipeline, writer = topic_pipeline, topic_pipeline.writer
    pipeline.items.insert(*({"_id": n, "v": n} for n in range(20)))
    pipeline.items.send(b'{"id":"99"}', b"no event")
    pipeline.items.await_equal(TIMEOUT_S)

    def complete() -> bool:
        report = reports(reader, pipeline).get(writer.instance)
        return report is not None and bool(report.collections) and items(report).dead_letters == 1

    wait_until(complete, TIMEOUT_S, "the writer reports what it did")
    report = reports(reader, pipeline)[writer.instance]
    told = items(report)
    assert report.state is PipelineState.RUNNING
    assert (told.events, told.rejected, told.topic) == (20, 1, pipeline.items.topic)
    assert told.last_rejection is not None
    assert told.schema_version == 1
    assert [each.partition for each in told.partitions] == [0]

    desire(pipeline, "stopped")
    writer.wait_gone(pipeline.name)
    stopped = f"{writer.instance} reports that it has stopped"
    wait_until(lambda: reports(reader, pipeline)[writer.instance].state is PipelineState.STOPPED, TIMEOUT_S, stopped)
    stands = pipeline.offsets("items")
    (partition,) = items(reports(reader, pipeline)[writer.instance]).partitions
    assert (partition.offset, partition.lag) == (21, 0)
    # It stands at the end, the letter included: a clean stop commits what it has read.
    assert stands == {0: 21}
    pipeline.items.insert({"_id": 100, "v": 1})
    pipeline.items.flush()
    assert writer.get("/ready").is_success, "a pipeline that shall not run keeps no writer from being ready"
    assert pipeline.offsets("items") == stands

    desire(pipeline, "running")
    pipeline.items.await_equal(TIMEOUT_S)
    assert reports(reader, pipeline)[writer.instance].state is PipelineState.RUNNING
    check_that_a_killed_writer_is_corrected(pipeline, reader)

    pipeline.unpublish()
    wait_until(lambda: not last_reports(pipeline.stack.kafka, pipeline.name), TIMEOUT_S, "nothing is left of it")


def check_that_a_killed_writer_is_corrected(pipeline: TopicPipeline, reader: StatusReader) -> None:
    """Each writer has a report of its own; what a killed one has left, it takes back itself once it is there again."""
    first = pipeline.writer.instance
    named = {"WRITER_INSTANCE_ID": f"{pipeline.name}-second"}
    second = pipeline.start_writer(named, ready=False, name="second")

    def states() -> dict[str, PipelineState]:
        return {name: report.state for name, report in reports(reader, pipeline).items()}

    running, stopped = PipelineState.RUNNING, PipelineState.STOPPED
    wait_until(lambda: states() == {first: running, second.instance: running}, TIMEOUT_S, "both report")
    second.kill()
    desire(pipeline, "stopped")
    wait_until(lambda: states() == {first: stopped, second.instance: running}, TIMEOUT_S, "the dead one says nothing")
    second = pipeline.start_writer(named, name="second")
    wait_until(lambda: states() == {first: stopped, second.instance: stopped}, TIMEOUT_S, "it corrects itself")
    assert second.pipeline_state(pipeline.name) == ("", None), "and does not run it"
