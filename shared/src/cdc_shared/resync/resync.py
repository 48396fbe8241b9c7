"""Resync: a new snapshot of collections on request, after which their tables equal the source whatever was missed.

Of the whole pipeline: the connector forgets how far it had read and begins with a snapshot, which also serves when its
position in the source's log is lost. Of single collections: it is told to snapshot them between two changes of the
stream. The writer sweeps by itself once the snapshot is in. A table that cannot read on where it stands starts anew
first. May be repeated; what an interrupted resync has begun goes on by itself or is begun again.
"""

import json
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, TypeVar

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import collection_regex
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.pipeline_tables import collections_with_tables
from cdc_shared.delta.table_location import TableLocation, table_location
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import Fatal
from cdc_shared.kafka.compacted_topic import send_record
from cdc_shared.kafka.spec_topic import publish_spec
from cdc_shared.kafka.topics import (
    CHANGE_TOPIC_CONFIG,
    UnknownTopic,
    change_topic,
    ensure_connector_topics,
    ensure_topic,
    held_offsets,
    notification_topic,
    signal_topic,
    topic_id,
)
from cdc_shared.models.collection import Collection as CollectionName
from cdc_shared.models.common import PipelineSpec
from cdc_shared.resync.new_start import HeldOffsets, plan_new_start, start_anew
from cdc_shared.retry import retrying
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors

CONNECT_TIMEOUT_S: Final = 90.0
SNAPSHOTLESS_MODES: Final = frozenset({"no_data"})

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ResyncTarget:
    """What must become whole.

    Attributes:
        since: the snapshot that was asked for begins at this offset of the notification topic, or later.
        topics: the collections (without their database) that it is of, with their topics as they were then.
    """

    since: int
    topics: Mapping[str, ChangeTopic]


class Resync:
    """One resync of one pipeline, at once (`start`) or in steps, which whoever drives it takes in their order.

    Each step may be repeated. They block on Kafka, Connect and the store, and raise `Transient` when one is away.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        kafka: KafkaSettings,
        stores: ObjectStoreSettings,
        connect: ConnectClient,
        collections: Collection[str],
        say: Say,
    ) -> None:
        """`collections` without their database; none means the whole pipeline. `say` gets lines for people.

        Raises `Fatal` for a collection that the pipeline does not capture.
        """
        if strange := sorted(name for name in collections if not spec.source.captures(name)):
            raise Fatal(f"pipeline {spec.name} does not capture {', '.join(strange)}; correct the name, or the spec")
        self._spec = spec
        self._kafka = kafka
        self._stores = stores
        self._connect = connect
        self._wanted = sorted(set(collections))
        self._say = say
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

    @property
    def is_whole(self) -> bool:
        """Whether it is of the whole pipeline."""
        return not self._wanted

    def start(self) -> ResyncTarget:
        """Take all steps: ask for the snapshot, waiting out what fails for a while. Returns when the connector runs.

        Raises `Fatal` when there is no connector, or one that takes no snapshots.
        """
        self.check()
        collections = self._patiently(self.collections)
        must_stop = self._patiently(lambda: self.must_stop(collections))
        with self._stopped_connector() if must_stop else nullcontext():
            if self.is_whole:  # first, because it also fences a task of the connector that has not ended yet
                self._say(f"connector {self._spec.name} forgets its position and begins with a snapshot")
                self._connect.forget_offsets(self._spec.name, CONNECT_TIMEOUT_S)
            target = self._patiently(lambda: self.make_ready(collections))
        self._connect.wait_running(self._spec.name, CONNECT_TIMEOUT_S)
        if not self.is_whole:
            self.signal(collections)
        self.wake_writers()
        return target

    def check(self) -> None:
        """Raise `Fatal` when there is no connector, or one that takes no snapshots; make the topics that it needs."""
        name = self._spec.name
        if self._connect.status(name) is None:
            raise Fatal(f"Kafka Connect has no connector {name}: deploy the pipeline first")
        if self.is_whole and self._spec.source.snapshot_mode in SNAPSHOTLESS_MODES:
            raise Fatal(
                f"pipeline {name} has source.snapshot_mode {self._spec.source.snapshot_mode}, so its connector never "
                "begins with a snapshot; name the collections to resync"
            )
        ensure_connector_topics(self._admin, name)

    def collections(self) -> list[str]:
        """Return the collections that it is of: those asked for, or all that have a table of their current state."""
        return self._wanted or [each.name for each in collections_with_tables(self._stores, self._spec)]

    def must_stop(self, collections: Collection[str]) -> bool:
        """Tell whether the connector must be stopped (and, of the whole pipeline, forget its offsets) before the next
        step, and started again behind it.
        """
        return self.is_whole or any(self._must_start_anew(each) for each in collections)

    def make_ready(self, collections: Collection[str]) -> ResyncTarget:
        """Have those tables start anew that must; return what must become whole then."""
        notifications = notification_topic(self._spec.name)
        ((_, since),) = held_offsets(self._admin, notifications, 1).values()
        resync_since = f"{topic_id(self._admin, notifications).id}:{since}"
        return ResyncTarget(since, {each: self._ready_table(each, resync_since) for each in collections})

    def signal(self, collections: Collection[str]) -> None:
        """Have the connector snapshot the collections; of the whole pipeline it does so by itself.

        Its signals are kept until it has taken them.
        """
        name, request = self._spec.name, str(uuid.uuid4())
        patterns = [collection_regex(self._spec.source, each) for each in collections]
        signal = {
            "id": request,
            "type": "execute-snapshot",
            "data": {"data-collections": patterns, "type": "BLOCKING"},
        }
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers, "enable.idempotence": True})
        send_record(producer, signal_topic(name), name.encode(), json.dumps(signal).encode())
        self._say(f"connector {name} was asked for a snapshot of {', '.join(collections)}")

    def wake_writers(self) -> None:
        """Have writers that had ended the pipeline begin again: publish its spec once more."""
        publish_spec(self._kafka.bootstrap_servers, self._spec, topic=self._kafka.pipelines_topic)

    @contextmanager
    def _stopped_connector(self) -> Iterator[None]:
        """Stop the connector, and start it again whatever happens meanwhile."""
        name = self._spec.name
        self._say(f"stopping connector {name}")
        self._patiently(lambda: self._connect.stop(name, CONNECT_TIMEOUT_S))
        try:
            yield
        finally:
            self._patiently(lambda: self._connect.resume(name))

    def _patiently(self, request: Callable[[], T]) -> T:
        """Repeat what fails for a while: Connect rebalances, a broker does not know yet of a topic just made."""
        return retrying(
            request,
            lambda attempt: self._say(f"waiting: {attempt.error}"),
            threading.Event(),
            give_up_after_s=CONNECT_TIMEOUT_S,
        )

    def _must_start_anew(self, collection: str) -> bool:
        name = self._topic_name(collection)
        location = self._location(collection)
        with store_errors(f"reading the log of {location.url}"):
            table = DeltaLog(location.store).load()
        if table.metadata is None:
            return False
        try:
            topic = ChangeTopic(name, *topic_id(self._admin, name))
        except UnknownTopic:
            return True
        return plan_new_start(table, topic, self._held(topic)) is not None

    def _ready_table(self, collection: str, resync_since: str) -> ChangeTopic:
        """Have the collection's table start anew if it must; return its topic."""
        topic = self._topic(collection)
        database = self._spec.source.database
        identity = TableIdentity(self._spec.name, database, collection)
        start = start_anew(
            self._location(collection), identity, self._spec.sink.mode, topic, self._held(topic), resync_since
        )
        if start is not None:
            offsets = ", ".join(f"{p} at {offset:,}" for p, offset in start.offsets.items())
            self._say(f"{database}.{collection} starts anew, partition {offsets}: {start.reason}")
        return topic

    def _location(self, collection: str) -> TableLocation:
        return table_location(self._spec, self._stores, CollectionName(self._spec.source.database, collection))

    def _topic(self, collection: str) -> ChangeTopic:
        """Return the collection's topic. Made when it is missing: offsets of a topic yet to be cannot be committed."""
        name = self._topic_name(collection)
        try:
            return ChangeTopic(name, *topic_id(self._admin, name))
        except UnknownTopic:
            ensure_topic(self._admin, name, self._spec.topic_partitions, CHANGE_TOPIC_CONFIG)
            return ChangeTopic(name, *topic_id(self._admin, name))

    def _topic_name(self, collection: str) -> str:
        return change_topic(self._spec.name, self._spec.source.database, collection)

    def _held(self, topic: ChangeTopic) -> HeldOffsets:
        return held_offsets(self._admin, topic.name, topic.partitions)
