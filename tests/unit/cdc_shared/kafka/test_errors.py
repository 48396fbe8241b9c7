"""What Kafka's errors mean: waiting cures some, the rest say what a person must do."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.errors import map_kafka_error

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "", "grant this client's user access to the topic"),
        (KafkaError.FENCED_INSTANCE_ID, "", "give each its own"),
        # As librdkafka reports it: its own code, and the broker's words.
        (KafkaError._FATAL, "Fatal error: Static consumer fenced by other consumer with same group.instance.id", "own"),
        (KafkaError._FATAL, "Fatal error: Out of order sequence", "restart the service"),
    ],
)
def test_what_no_waiting_cures_names_the_remedy(code, reason, remedy):
    mapped = map_kafka_error(KafkaError(code, reason), "reading p.db.things[0]")
    assert type(mapped) is Fatal
    assert str(mapped).startswith("reading p.db.things[0]: ")
    assert remedy in str(mapped)


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._TIMED_OUT])
def test_what_passes_is_transient(code):
    assert type(map_kafka_error(KafkaException(KafkaError(code)), "x")) is Transient
