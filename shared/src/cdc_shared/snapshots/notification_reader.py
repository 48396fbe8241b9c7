"""Follows a pipeline's notification topic from its beginning: it is small, and all of it together is the state."""

from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import ensure_connector_topics, notification_topic, topic_id
from cdc_shared.snapshots.notifications import Notification, SnapshotHistory, decode_notification

MAX_RECORDS_A_READ: Final = 500


class NotificationReader:
    """Reads committed notifications into a `SnapshotHistory`, without a consumer group. Not thread-safe."""

    def __init__(self, bootstrap_servers: str, pipeline: str) -> None:
        """Make the pipeline's connector topics when they are missing. Raises `Transient` or `Fatal`."""
        admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        ensure_connector_topics(admin, pipeline)
        self._topic = notification_topic(pipeline)
        self.topic_id = topic_id(admin, self._topic).id
        self.history = SnapshotHistory()
        self.caught_up = False
        """Whether everything that was in the topic has been read at least once."""
        self.position = 0
        """Everything before this offset has been read."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "cdc.notification-reader",  # librdkafka asks for one; nothing is committed under it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])

    def read(self, timeout_s: float = 0.0) -> list[Notification]:
        """Take in what has come, waiting up to `timeout_s` for the first; return it too. Raises `Fatal`."""
        notifications = []
        for message in self._consumer.consume(MAX_RECORDS_A_READ, timeout_s):
            error = message.error()
            if error is not None:
                self._note(error, int(message.offset() or 0))
                continue
            self.position = int(message.offset() or 0) + 1
            notification = decode_notification(message.value(), int(message.offset() or 0))
            if notification is not None:
                self.history.add(notification)
                notifications.append(notification)
        return notifications

    def close(self) -> None:
        """Give the consumer back."""
        self._consumer.close()

    def _note(self, error: KafkaError, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self.caught_up, self.position = True, offset
            return
        mapped = map_kafka_error(error, f"read {self._topic}")
        if not isinstance(mapped, Transient):  # librdkafka reconnects by itself
            raise mapped
