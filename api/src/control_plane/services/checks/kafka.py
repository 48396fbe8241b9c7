"""Whether Kafka answers, and the pipeline's topics, where there are some, are as the spec says."""

from typing import Final

from confluent_kafka.admin import AdminClient

from cdc_shared.kafka.errors import kafka_errors
from cdc_shared.kafka.topics import change_topic, sentinel_topic
from cdc_shared.models.common import PipelineSpec
from control_plane.services.checks.check import Finding, failed, ok, some

ANSWER_TIMEOUT_S: Final = 5.0


def kafka(bootstrap_servers: str, spec: PipelineSpec) -> Finding:
    """The brokers answer, and a change topic that is there already has the partitions that the spec gives it."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    with kafka_errors("ask Kafka for its topics"):
        cluster = admin.list_topics(timeout=ANSWER_TIMEOUT_S)
    own = change_topic(spec.name, spec.source.database, "")
    sentinel = sentinel_topic(spec.name, spec.source.database)
    others = sorted(
        f"{name} has {len(topic.partitions)}"
        for name, topic in cluster.topics.items()
        if name.startswith(own) and name != sentinel and len(topic.partitions) != spec.topic_partitions
    )
    if others:
        return failed(
            f"topic_partitions is {spec.topic_partitions}, but {some(others)}: it is fixed once a topic is there; "
            "set it back, or delete the topics and resync"
        )
    brokers = len(cluster.brokers)
    return ok(f"{brokers} broker{'s' * (brokers != 1)} answer{'s' * (brokers == 1)}")
