"""What Kafka's errors mean to the platform, in one place."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.redaction import redact_text

_SAME_INSTANCE_ID = "another writer runs under the same WRITER_INSTANCE_ID; give each its own"
_REMEDIES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this client's user access to the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant this client's user access to the consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this client's user the cluster permission that it needs",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant this client's user the transactional id",
    KafkaError.SASL_AUTHENTICATION_FAILED: "correct the Kafka user name and password",
    KafkaError._AUTHENTICATION: "correct the Kafka user name and password",
    KafkaError.MSG_SIZE_TOO_LARGE: "raise max.message.bytes of the topic and message.max.bytes of the client",
    KafkaError.INVALID_CONFIG: "correct the topic's configuration",
    KafkaError.POLICY_VIOLATION: "the brokers' policy forbids it; ask their administrator",
    KafkaError.TOPIC_EXCEPTION: "use letters, digits, dots, - and _ only, 249 at most",
    KafkaError.INVALID_REPLICATION_FACTOR: "use a replication factor that the number of brokers allows",
    KafkaError.INVALID_PARTITIONS: "use one partition or more",
    KafkaError.FENCED_INSTANCE_ID: _SAME_INSTANCE_ID,
    KafkaError._INVALID_ARG: "correct the client's configuration",
}


def map_kafka_error(error: KafkaError | KafkaException, what: str) -> CdcError:
    """`Fatal` with the remedy for what no retry cures, else `Transient`; `what` names the action and its object."""
    detail = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(detail, KafkaError):
        return Transient(f"{what}: {redact_text(str(detail))}")
    text = redact_text(f"{detail.name()}: {detail.str()}")
    remedy = _REMEDIES.get(detail.code())
    if remedy is not None:
        return Fatal(f"{what}: {text}; {remedy}")
    if detail.fatal() or detail.code() == KafkaError._FATAL:
        # librdkafka reports a client that can never work again as _FATAL, and only the text says why.
        remedy = _SAME_INSTANCE_ID if "group.instance.id" in text else "restart the service"
        return Fatal(f"{what}: {text}; {remedy}")
    return Transient(f"{what}: {text}")


@contextmanager
def kafka_errors(what: str) -> Iterator[None]:
    """Turn Kafka's errors into `Transient` or `Fatal`."""
    try:
        yield
    except KafkaException as error:
        raise map_kafka_error(error, what) from error
