"""How far partitions are written."""

from collections.abc import Collection
from typing import Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cdc_shared.errors import Transient
from cdc_shared.kafka.errors import map_kafka_error

REQUEST_TIMEOUT_S: Final = 15.0
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


def written_ends(
    admin: AdminClient, partitions: Collection[tuple[str, int]], timeout_s: float = REQUEST_TIMEOUT_S
) -> dict[tuple[str, int], int]:
    """Return, for each (topic, partition) that exists, the offset behind the last record written to it.

    Records of open transactions are counted, so not what a `read_committed` consumer could read now. A transaction
    becomes visible partition by partition: when a record of it is seen in one, its records in another are written, but
    their transaction may still look open there, and the end of what is committed lies before them.

    Raises `Transient` when Kafka does not say, `Fatal` when it refuses to.
    """
    if not partitions:
        return {}
    asked = {TopicPartition(topic, partition): OffsetSpec.latest() for topic, partition in partitions}  # type: ignore[no-untyped-call]
    what = "read how far the change topics are written"
    ends = {}
    try:
        told = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s)
        for where, future in told.items():
            try:
                ends[where.topic, where.partition] = future.result(timeout=timeout_s + 5).offset
            except KafkaException as error:
                if error.args[0].code() not in _GONE:
                    raise
    except KafkaException as error:
        raise map_kafka_error(error, what) from error
    except TimeoutError as error:
        raise Transient(f"{what}: no answer within {timeout_s:.0f} s") from error
    return ends
