"""The tables of one pipeline: which topic goes to which table, opened when first needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc_shared.documents import DocumentSchema
from cdc_shared.errors import Fatal
from cdc_shared.kafka.topics import TopicIdentity, change_topic
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store, table_url
from delta_writer.consumer.event_consumer import HeldOffsets
from delta_writer.consumer.event_handler import Collection
from delta_writer.writer.copy_on_write_writer import CopyOnWriteWriter
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import DeltaWriter, TableLocation
from delta_writer.writer.offsets import ChangeTopic
from delta_writer.writer.table_metadata import TableIdentity

WRITERS: dict[str, type[DeltaWriter]] = {writer.mode: writer for writer in (DeletionVectorWriter, CopyOnWriteWriter)}


@dataclass(slots=True)
class Table:
    """An open table: its collection, its writer, and the widest schema that its documents have shown."""

    collection: Collection
    writer: DeltaWriter
    seen_schema: DocumentSchema
    named_by_event: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether the collection is known, and not only taken from the topic's name."""
        return self.named_by_event or self.writer.version >= 0

    @property
    def known_schema(self) -> DocumentSchema:
        """The table's schema with the null-only fields seen so far; the table's alone after somebody changed it."""
        return self.seen_schema if self.seen_schema.typed() == self.writer.schema else self.writer.schema


def table_location(spec: PipelineSpec, stores: ObjectStoreSettings, collection: Collection) -> TableLocation:
    """Return where a collection's table is. Makes no request."""
    url = table_url(stores.root_for(spec.sink.root), spec.name, collection.database, collection.name)
    return TableLocation(url, open_store(url, stores), stores.storage_options())


class Tables:
    """Opens, hands out and closes the tables of a pipeline. Not thread-safe."""

    def __init__(
        self,
        spec: PipelineSpec,
        stores: ObjectStoreSettings,
        cache_dir: Path,
        describe_topic: Callable[[str], TopicIdentity],
    ) -> None:
        self._spec = spec
        self._stores = stores
        self._cache_dir = cache_dir
        self._describe_topic = describe_topic
        self._tables: dict[str, Table] = {}

    @property
    def opened(self) -> Mapping[str, Table]:
        """The open tables by topic."""
        return self._tables

    def start_offset(self, topic: str, partition: int, held: HeldOffsets) -> int:
        """Return where to read an assigned partition from, by its table; see `DeltaWriter.next_offset`.

        Before its first event is seen, a topic's collection is taken from its name; when the name does not lead to a
        table, reading starts at the first offset held, and the fence decides once the event has named the collection.
        """
        if self.topic_moved(topic):
            self._close(topic)
        if (known := self._tables.get(topic)) is not None:
            known.writer.refresh()  # another writer may have had the partition meanwhile
        table = self._current(topic)
        if table is None:
            return held()[0]
        # Asked for after the table is read: another writer may still move the table, never past the topic's end.
        low, high = held()
        return low if table.writer.version < 0 else table.writer.next_offset(partition, low, high)

    def table_for(self, topic: str, collections: frozenset[Collection]) -> Table | None:
        """Return the table of a batch whose events come from `collections`; None when that is not known yet.

        Raises:
            Fatal: events of two collections are in one topic.
        """
        table = self._current(topic)
        if not collections:
            return table
        if table is not None and collections == {table.collection}:
            table.named_by_event = True
            return table
        known = collections | {table.collection} if table is not None and table.writer.version >= 0 else collections
        if len(known) > 1:
            names = " and ".join(sorted(f"{each.database}.{each.name}" for each in known))
            raise Fatal(
                f"topic {topic} carries changes of {names}: their names are the same once Kafka's rules for topic "
                "names are applied; exclude one of them from the pipeline, or rename it"
            )
        self._close(topic)
        (collection,) = collections
        table = self._open(topic, collection)
        table.named_by_event = True
        return table

    def topic_moved(self, topic: str) -> bool:
        """Tell whether Kafka's topic is no longer the one that the open table reads: made again, or repartitioned."""
        table = self._tables.get(topic)
        return table is not None and _change_topic(topic, self._describe_topic(topic)) != table.writer.topic

    def close(self) -> None:
        """Close every table."""
        for topic in list(self._tables):
            self._close(topic)

    def _current(self, topic: str) -> Table | None:
        table = self._tables.get(topic)
        if table is not None:
            return table
        prefix = change_topic(self._spec.name, self._spec.source.database, "")
        if not topic.startswith(prefix) or topic == prefix:
            return None
        return self._open(topic, Collection(self._spec.source.database, topic.removeprefix(prefix)))

    def _open(self, topic: str, collection: Collection) -> Table:
        identity = TableIdentity(self._spec.name, collection.database, collection.name)
        location = table_location(self._spec, self._stores, collection)
        change = _change_topic(topic, self._describe_topic(topic))
        writer = WRITERS[self._spec.sink.mode](location, identity, change, self._cache_dir)
        table = Table(collection, writer, writer.schema)
        self._tables[topic] = table
        return table

    def _close(self, topic: str) -> None:
        table = self._tables.pop(topic, None)
        if table is not None:
            table.writer.close()


def _change_topic(name: str, identity: TopicIdentity) -> ChangeTopic:
    return ChangeTopic(name, identity.id, identity.partitions)
