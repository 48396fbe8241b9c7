"""Taking away what a pipeline has made: its tables and its topics. Nobody may read or write them any more by then.

Which tables are the pipeline's they say themselves, so they are listed before the first is touched: of one that is half
gone nobody could tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import obstore
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.table_metadata import owner_of
from cdc_shared.kafka.errors import kafka_errors, map_kafka_error
from cdc_shared.kafka.topics import change_topic, notification_topic, signal_topic
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import directories, open_store, store_errors, table_url

KAFKA_TIMEOUT_S: Final = 10.0
OBJECTS_A_REQUEST: Final = 1_000
REMOVE_FOR_S: Final = 15.0
# A pipeline may be named cdc, and its database notifications.
_OTHERS: Final = (signal_topic(""), notification_topic(""))


def tables_of(spec: PipelineSpec, stores: ObjectStoreSettings) -> list[str]:
    """Return the URLs of the pipeline's tables, histories included: those that say that they are its own.

    Raises `Transient` or `Fatal`.
    """
    root = table_url(stores.root_for(spec.sink.root), spec.name, spec.source.database, "").rstrip("/")
    with store_errors(f"looking for tables under {root}"):
        urls = [f"{root}/{name}" for name in directories(root, stores)]
        tables = {url: DeltaLog(open_store(url, stores)).load().metadata for url in urls}
    return sorted(url for url, metadata in tables.items() if metadata and owner_of(metadata).pipeline == spec.name)


def remove_table(url: str, stores: ObjectStoreSettings, clock: Callable[[], float] = time.monotonic) -> bool:
    """Delete what is under the URL, for a few seconds; tell whether nothing is left. Raises `Transient` or `Fatal`."""
    deadline_s = clock() + REMOVE_FOR_S
    store = open_store(url, stores)
    with store_errors(f"removing {url}"):
        while True:
            found = next(iter(obstore.list(store, chunk_size=OBJECTS_A_REQUEST)), [])
            if not found:
                return True
            obstore.delete(store, [each["path"] for each in found])
            if clock() >= deadline_s:
                return False


def change_topics_of(spec: PipelineSpec, topics: Iterable[str]) -> list[str]:
    """Return which of the topics hold changes of the pipeline's database, the platform's own collection included."""
    prefix = change_topic(spec.name, spec.source.database, "")
    return sorted(topic for topic in topics if topic.startswith(prefix) and not topic.startswith(_OTHERS))


def connector_topics_of(name: str, topics: Iterable[str]) -> list[str]:
    """Return which of the topics its connector needs beside those of changes."""
    return sorted({signal_topic(name), notification_topic(name), f"__debezium-heartbeat.{name}"} & set(topics))


def all_topics(admin: AdminClient) -> list[str]:
    """Return the names of all topics that there are. Raises `Transient` or `Fatal`."""
    with kafka_errors("list topics"):
        return list(admin.list_topics(timeout=KAFKA_TIMEOUT_S).topics)


def remove_topics(admin: AdminClient, topics: list[str]) -> None:
    """Delete the topics; those that are gone already do no harm. Raises `Transient` or `Fatal`."""
    if not topics:
        return
    for topic, future in admin.delete_topics(topics, operation_timeout=KAFKA_TIMEOUT_S).items():
        try:
            future.result(KAFKA_TIMEOUT_S + 5)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise map_kafka_error(error, f"delete topic {topic}") from None
