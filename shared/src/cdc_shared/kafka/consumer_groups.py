"""Who reads: the members of consumer groups."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc_shared.kafka.errors import map_kafka_error

REQUEST_TIMEOUT_S = 15.0


def writer_group(pipeline: str) -> str:
    """The consumer group of a pipeline's writers."""
    return f"cdc-writer.{pipeline}"


def members(admin: AdminClient, group: str) -> list[str]:
    """The members of a group as `client id on host`; none when the group does not exist. Raises `Transient`, `Fatal`.

    A member that was killed is one until its session has ended.
    """
    described = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)
    try:
        found = described[group].result(timeout=REQUEST_TIMEOUT_S + 5).members
    except KafkaException as error:
        raise map_kafka_error(error, f"describe group {group}") from error
    return [f"{each.client_id} on {each.host.lstrip('/')}" for each in found]
