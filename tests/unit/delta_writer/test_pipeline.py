"""The flow of one pipeline, with Kafka played by a fake that keeps its promises."""

import json
from contextlib import closing

import pyarrow as pa
import pytest
import structlog
from fake_kafka import SOURCE, TOPIC, FakeConsumer
from fake_source import FakeSource
from local_pipeline import LocalPipeline
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cdc_shared.delta.table_metadata import MASKED
from cdc_shared.errors import Fatal, ResyncNeeded, Transient
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.models.collection import Collection
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.storage.object_store import table_url
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer import pipeline
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter

pytestmark = pytest.mark.unit

VALUE = "jane.doe@corp"


@pytest.fixture
def run(tmp_path):
    return LocalPipeline(tmp_path)


def test_changes_reach_the_table_and_a_restart_reads_nothing_twice(run):
    for i in range(5):
        run.kafka.send(str(i), "c", {"_id": i, "n": i})
    run.go()
    run.kafka.send("0", "d", None)
    run.kafka.send("1", "u", {"_id": 1, "n": 11})
    run.go()
    assert run.rows()["n"].to_pylist() == [11, 2, 3, 4]
    assert run.rows()["_cdc_offset"].to_pylist() == [6, 2, 3, 4]


def test_bad_records_are_dead_letters_and_the_stream_goes_on(run):
    run.kafka.send_raw(b"k", b"not json")
    run.kafka.send("1", "c", {"_id": 1})
    run.kafka.send_raw(b'{"id": "2"}', json.dumps({"op": "c", "after": "{broken", "source": SOURCE}).encode())
    run.kafka.send("2", "c", {"_id": 2})
    run.kafka.send_raw(b'{"id": "2"}', json.dumps({"op": "u", "after": "[]", "source": SOURCE}).encode())
    run.go()
    assert [(letter.offset, letter.value is not None) for letter in run.letters] == [(0, True), (2, True), (4, True)]
    assert run.rows()["_id"].to_pylist() == [1, 2]


def test_a_store_that_is_away_is_waited_out(run, monkeypatch):
    run.kafka.send("1", "c", {"_id": 1})
    real, failures = DeletionVectorWriter._write, iter([Transient("away"), Transient("away")])

    def write(self, batch):
        for failure in failures:
            raise failure
        return real(self, batch)

    monkeypatch.setattr(DeletionVectorWriter, "_write", write)
    run.go()
    assert run.rows()["_id"].to_pylist() == [1]
    assert run.statuses == [PipelineState.RUNNING, PipelineState.RETRYING, PipelineState.RUNNING]
    assert run.letters == []


def test_the_end_of_a_topic_is_asked_for_after_the_table_is_read(run):
    """Another writer may move the table between the two: an end from before would look like lost records."""
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    with closing(run.tables()) as tables:
        assert tables.start_offset(TOPIC, 0, lambda: (0, 1)) == 1
        run.kafka.send("2", "c", {"_id": 2})
        run.go()
        versions_known = []

        def held():
            versions_known.append(tables.table_for(TOPIC, frozenset()).writer.version)
            return 0, 2

        assert tables.start_offset(TOPIC, 0, held) == 2
        assert versions_known == [1]


def test_a_batch_goes_on_with_the_trace_of_its_first_record(run):
    spans = InMemorySpanExporter()
    run.tracing = configure_tracing("test", None, spans)
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    run.tracing.shutdown()
    (span,) = spans.get_finished_spans()
    assert span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert span.attributes == {"topic": TOPIC, "records": 1}


def test_an_unexpected_error_is_told_without_the_values_that_it_quotes(run, monkeypatch):
    """In the status, which goes to cdc.status and /health, in the log and in the span."""
    spans = InMemorySpanExporter()
    run.tracing = configure_tracing("test", None, spans)
    run.kafka.send("1", "c", {"_id": 1, "mail": VALUE})
    monkeypatch.setattr(DeletionVectorWriter, "_write", lambda *_: pa.array([1, VALUE], pa.int64()))
    with structlog.testing.capture_logs() as said:
        with pytest.raises(pa.ArrowInvalid, match=VALUE) as caught:
            run.go()
        run.observer.failed(caught.value)
    run.tracing.shutdown()
    place = "unexpected ArrowInvalid at delta_writer.writer.delta_writer:"
    assert run.observer.status.state is PipelineState.FAILED
    assert run.observer.status.reason.startswith(place)
    (stopped,) = [each for each in said if each["event"] == "pipeline stopped"]
    assert stopped["reason"].startswith(place)
    assert stopped["exc_info"] is True
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description.startswith(place)
    assert VALUE not in span.to_json()
    assert span.events == ()


def test_trouble_after_success_is_not_waited_out_as_long_as_trouble_before(run, monkeypatch):
    """The back-off grows while nothing gets through; it must not remember last week's outages."""
    real, offsets = FakeConsumer.poll, iter(range(8))

    def poll(self, timeout_s):
        records = real(self, timeout_s)
        if not records and (number := next(offsets, None)) is not None:
            run.stop.clear()
            run.kafka.send(str(number), "c", {"_id": number})
            raise Transient("broker away")
        return records

    monkeypatch.setattr(FakeConsumer, "poll", poll)
    run.kafka.send("-1", "c", {"_id": -1})
    run.go()
    assert run.rows()["_id"].to_pylist() == list(range(-1, 8))
    assert PipelineState.RETRYING not in run.statuses


def test_dead_letters_alone_are_not_read_again_for_ever(run):
    """Offsets need a table: once an event has named the collection, one is made for them, without a row."""
    run.kafka.send_raw(b"k", b"not json")
    run.kafka.send("1", "d", None)
    run.go()
    run.go()
    assert [letter.offset for letter in run.letters] == [0]
    assert run.rows().num_rows == 0


def test_two_collections_in_one_topic_are_refused(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.kafka.send("2", "c", {"_id": 2}, source={**SOURCE, "collection": "th.ings"})
    with pytest.raises(Fatal, match=r"db\.th\.ings and db\.things"):
        run.go()


def test_the_collection_is_taken_from_the_event_not_from_the_topics_name(run):
    run.kafka.send("1", "c", {"_id": 1}, topic="p.db.my_things", source={**SOURCE, "collection": "my things"})
    run.go()
    run.kafka.send("2", "c", {"_id": 2}, topic="p.db.my_things", source={**SOURCE, "collection": "my things"})
    run.go()
    (log,) = (run.cache.parent / "lake" / "p" / "db").glob("*/_delta_log")
    assert log.parent.name == table_url("", "p", "db", "my things").rpartition("/")[2] != "my_things"


def test_an_expired_offset_stops_the_pipeline(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    run.kafka.send("1", "u", {"_id": 1, "n": 1})
    run.kafka.send("1", "u", {"_id": 1, "n": 2})
    run.kafka.low = 2
    with pytest.raises(ResyncNeeded, match="retention"):
        run.go()


def test_a_topic_made_again_stops_the_pipeline_while_it_runs(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    run.kafka.topics[TOPIC].clear()
    run.kafka.send("1", "c", {"_id": 1, "n": "new incarnation"})
    run.kafka.ids[TOPIC] = "another id"
    with pytest.raises(ResyncNeeded, match="made again"):
        run.go()
    assert run.rows()["_cdc_offset"].to_pylist() == [0]


def test_a_request_brings_the_row_to_what_the_source_holds(run):
    """Attacks I11."""
    run.kafka.send("1", "c", {"_id": 1, "n": "damaged"})
    run.kafka.send("2", "c", {"_id": 2, "n": "gone from the source"})
    run.source.documents = {"things": [{"_id": 1, "n": "true"}, {"_id": 3, "n": "missing"}]}
    for key in ("1", "2", "3", "4"):
        run.kafka.send(key, "x", None)
    run.go()
    assert run.rows()["n"].to_pylist() == ["true", "missing"]
    assert run.rows()["_cdc_offset"].to_pylist() == [2, 4]
    assert [moment.timestamp() for moment in run.rows()["_cdc_source_ts"].to_pylist()] == [FakeSource.TIME_S] * 2
    outcomes = {s.labels["outcome"]: s.value for s in _samples(run.metrics.rereads) if s.name.endswith("_total")}
    assert outcomes == {"upserted": 2, "deleted": 2}
    assert run.letters == []


def test_a_request_loses_to_what_comes_later_in_its_batch(run):
    """Attacks I6 and I11."""
    run.max_rows = 100
    run.source.documents = {"things": [{"_id": 1, "n": "read"}, {"_id": 2, "n": "read"}, {"_id": 3, "n": "read"}]}
    run.kafka.send("1", "x", None)
    run.kafka.send("1", "u", {"_id": 1, "n": "later"})
    run.kafka.send("2", "u", {"_id": 2, "n": "before"})
    run.kafka.send("2", "x", None)
    run.kafka.send("2", "x", None)
    run.kafka.send("3", "x", None)
    run.kafka.send("3", "d", None)
    run.go()
    assert run.rows()["n"].to_pylist() == ["later", "read"]
    assert run.rows()["_cdc_offset"].to_pylist() == [1, 4]
    assert run.source.queries == 1


def test_a_source_that_is_away_is_waited_out_and_nothing_is_dropped(run):
    run.kafka.send("1", "x", None)
    run.kafka.send("2", "c", {"_id": 2, "n": "after"})
    run.source.documents = {"things": [{"_id": 1, "n": "read"}]}
    run.source.failures = [Transient("away"), Transient("away")]
    run.go()
    assert run.rows()["n"].to_pylist() == ["read", "after"]
    assert run.statuses == [PipelineState.RUNNING, PipelineState.RETRYING, PipelineState.RUNNING]
    assert run.letters == []


def test_a_pipeline_without_requests_never_asks_its_source(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.source.failures = [Fatal("no such secret")]
    run.go()
    run.kafka.send("1", "x", None)
    with pytest.raises(Fatal, match="no such secret"):
        run.go()


def test_requests_that_cannot_be_answered_are_dead_letters(run):
    run.kafka.send("1", "x", None, source={**SOURCE, "collection": "elsewhere"})
    run.kafka.send('{"a": {"$undefined": true}}', "x", None)
    run.kafka.send("1", "c", {"_id": 1, "n": "event"})
    run.go()
    assert [(letter.offset, letter.rejection.message.partition(":")[0]) for letter in run.letters] == [
        (0, "a re-read request for a collection that the pipeline does not capture to this topic"),
        (1, "a key from which no document's _id can be told"),
    ]
    assert run.rows()["n"].to_pylist() == ["event"]


def _samples(metric):
    return [sample for family in metric.collect() for sample in family.samples]


def of_rules(version):
    redact, required = {"rule": "redact", "path": "/name"}, {"rule": "required", "path": "/name"}
    return QualitySpec.model_validate({"version": version, "validation": [required], "transformation": [redact]})


def as_if_masked_by(version, run):
    with closing(run.tables()) as tables:
        tables.table_for(TOPIC, frozenset({Collection("db", "things")})).writer.set_properties({MASKED: str(version)})


class Stale:
    """Has the rules of version 2 come after three waits; counts the waits and how often it was read again."""

    def __init__(self, run, monkeypatch):
        self.waited_s, self.drops, self.seen = 0.0, 0, set()
        keep_alive, read_again = FakeConsumer.keep_alive, pipeline.Pipeline._read_again

        def waits(consumer, seconds):
            keep_alive(consumer, seconds)
            self.waited_s += seconds
            self.seen.add((run.observer.status.state, run.observer.status.reason))
            if self.waited_s >= 2.5 * pipeline.STALE_RULES_WAIT_S:
                run.quality.replace(of_rules(2))

        def drops(*args):
            self.drops += 1
            assert self.drops < 20, "a hot loop"
            read_again(*args)

        monkeypatch.setattr(pipeline, "STALE_RULES_WAIT_S", 0.05)
        monkeypatch.setattr(FakeConsumer, "keep_alive", waits)
        monkeypatch.setattr(pipeline.Pipeline, "_read_again", drops)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_newer_rules_are_waited_for_where_the_tables_rows_have_their_masks(run, monkeypatch, when):
    """`meanwhile`: another writer masks the table when this one has read it already."""
    run.spec = run.spec.model_copy(update={"quality": of_rules(1)})
    run.max_rows = 2
    run.kafka.send("1", "c", {"_id": 1, "name": "a"})
    run.go()
    run.kafka.send("2", "c", {"_id": 2, "name": "b"})
    run.kafka.send("3", "c", {"_id": 3})
    stale = Stale(run, monkeypatch)
    commit = DeletionVectorWriter.commit

    def masked_first(writer, batch):
        if not stale.drops:
            as_if_masked_by(2, run)
        return commit(writer, batch)

    if when == "before":
        as_if_masked_by(2, run)
    else:
        monkeypatch.setattr(DeletionVectorWriter, "commit", masked_first)
    run.statuses.clear()
    run.go()
    assert run.rows()["_id"].to_pylist() == [1, 2]
    assert run.statuses == [PipelineState.RUNNING, PipelineState.RETRYING, PipelineState.RUNNING]
    ((state, reason),) = stale.seen
    assert state is PipelineState.RETRYING
    assert "masks of version 2 of the rules, and version 1 is in force here" in reason
    assert stale.drops == 3
    # A letter of the commit that came too late, one of rules in force; none each time that the batch is read again.
    assert len(run.letters) == (1 if when == "before" else 2)
