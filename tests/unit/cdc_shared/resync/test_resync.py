"""What a resync asks of the connector, and that it leaves none stopped."""

import json
from types import SimpleNamespace

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus
from cdc_shared.errors import Fatal
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.resync import resync as module
from cdc_shared.resync.new_start import NewStart
from cdc_shared.resync.resync import Resync, ResyncTarget
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings

pytestmark = pytest.mark.unit


class FakeConnect:
    """Notes what is asked of it."""

    def __init__(self):
        self.asked = []
        self.known = True

    def status(self, name):
        return ConnectorStatus(name, "RUNNING", "", ()) if self.known else None

    def stop(self, name, timeout_s):
        self.asked.append("stop")

    def resume(self, name):
        self.asked.append("resume")

    def forget_offsets(self, name, timeout_s):
        self.asked.append("forget offsets")

    def wait_running(self, name, timeout_s):
        self.asked.append("wait")


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Kafka and the tables, as far as a resync looks at them."""
    world = SimpleNamespace(connect=FakeConnect(), sent=[], said=[], table=None, start=None, error=None, published=0)

    def start_anew(*args):
        world.connect.asked.append(f"start anew {args[-1]}")
        if world.error is not None:
            raise world.error
        return world.start

    def published(*args, **kwargs):
        world.published += 1

    table = SimpleNamespace(load=lambda: SimpleNamespace(metadata=world.table))
    monkeypatch.setattr(module, "AdminClient", lambda config: None)
    monkeypatch.setattr(module, "Producer", lambda config: None)
    monkeypatch.setattr(module, "ensure_connector_topics", lambda *args: None)
    monkeypatch.setattr(module, "held_offsets", lambda admin, topic, partitions: {0: (0, 7)})
    monkeypatch.setattr(module, "topic_id", lambda admin, topic: TopicIdentity("id", 1))
    monkeypatch.setattr(module, "DeltaLog", lambda store: table)
    monkeypatch.setattr(module, "plan_new_start", lambda *args: world.start)
    monkeypatch.setattr(module, "start_anew", start_anew)
    monkeypatch.setattr(module, "publish_spec", published)
    monkeypatch.setattr(module, "send_record", lambda producer, *record: world.sent.append(record))

    def resync(*collections, **source):
        spec = PipelineSpec(
            name="shop",
            source=SourceSpec(connection="env:X", database="shop", **source),
            sink={"root": str(tmp_path)},
        )
        kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "localhost:1"})
        return Resync(spec, kafka, ObjectStoreSettings(), world.connect, collections, world.said.append)

    world.resync = resync
    return world


def test_of_the_whole_pipeline_the_connector_forgets_its_position(world):
    request = world.resync()
    assert request.start() == ResyncTarget(7, {})  # there is no table yet
    assert world.connect.asked == ["stop", "forget offsets", "resume", "wait"]
    assert world.sent == []
    assert world.published == 1


def test_a_collection_is_asked_for_by_a_signal_and_the_stream_goes_on(world):
    world.table = object()
    world.resync("a", "b.c").start()
    assert world.connect.asked == ["start anew id:7", "start anew id:7", "wait"]
    ((topic, key, value),) = world.sent
    assert (topic, key) == ("cdc.signals.shop", b"shop")
    signal = json.loads(value)
    assert signal["type"] == "execute-snapshot"
    assert signal["data"] == {"data-collections": [r"shop\.a", r"shop\.b\.c"], "type": "BLOCKING"}


def test_a_table_starts_anew_while_the_connector_is_stopped(world):
    world.table, world.start = object(), NewStart("why", {0: 3})
    world.resync("a").start()
    assert world.connect.asked == ["stop", "start anew id:7", "resume", "wait"]
    assert "shop.a starts anew, partition 0 at 3: why" in world.said
    assert len(world.sent) == 1


def test_whatever_fails_meanwhile_the_connector_is_started_again(world):
    world.table, world.start, world.error = object(), NewStart("why", {0: 3}), Fatal("not this collection's table")
    with pytest.raises(Fatal, match="not this"):
        world.resync("a").start()
    assert world.connect.asked == ["stop", "start anew id:7", "resume"]
    assert world.sent == []


def test_what_cannot_be_resynced_is_refused_before_anything_is_done(world):
    with pytest.raises(Fatal, match="does not capture b"):
        world.resync("a", "b", include_collections=("a",))
    with pytest.raises(Fatal, match="name the collections to resync"):
        world.resync(snapshot_mode="no_data").start()
    world.connect.known = False
    with pytest.raises(Fatal, match="deploy the pipeline first"):
        world.resync().start()
    assert world.connect.asked == []
