"""The tables of one pipeline: which topic goes to which table, opened when first needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import table_location
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import Fatal
from cdc_shared.kafka.topics import TopicIdentity, change_topic
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import HISTORY_SUFFIX, PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.consumer.event_consumer import HeldOffsets
from delta_writer.writer.copy_on_write_writer import CopyOnWriteWriter
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import DeltaWriter
from delta_writer.writer.history_writer import HistoryWriter
from delta_writer.writer.schema_cache import SchemaCache
from delta_writer.writer.schema_manager import SchemaManager
from delta_writer.writer.sink import Sink

WRITERS: dict[str, type[DeltaWriter]] = {writer.mode: writer for writer in (DeletionVectorWriter, CopyOnWriteWriter)}


@dataclass(slots=True)
class Table:
    """The open table of a collection, and its history when the pipeline keeps one."""

    collection: Collection
    current: Sink
    history: Sink | None = None
    named_by_event: bool = False

    @property
    def writer(self) -> DeltaWriter:
        """The writer of the current state."""
        return self.current.writer

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Where a batch goes, in this order: a history that has all that the current state has can be gone on with."""
        return (self.current,) if self.history is None else (self.history, self.current)

    @property
    def is_certain(self) -> bool:
        """Whether the collection is known, and not only taken from the topic's name."""
        return self.named_by_event or self.writer.version >= 0

    def refresh(self) -> None:
        """Follow what others have committed since. Raises what `DeltaWriter.reload` does."""
        for sink in self.sinks:
            sink.writer.refresh()
        self.lead_history()

    def reload(self) -> None:
        """Read the state of both tables anew. Raises what `DeltaWriter.reload` does."""
        for sink in self.sinks:
            sink.writer.reload()
        self.lead_history()

    def start_offset(self, partition: int, low: int, high: int) -> int:
        """Return where to read a partition from: at the lower of the tables. See `Sink.start_offset`."""
        return min(sink.start_offset(partition, low, high) for sink in self.sinks)

    def is_new(self, partition: int, offset: int) -> bool:
        """Tell whether the table of the current state, which is written last, has not come as far as the offset.

        Else what lies there was dealt with. That the history is further does not say so: the process may have died in
        between, and other rules may reject now what it has taken.
        """
        return self.current.stands.get(partition, 0) <= offset

    def close(self) -> None:
        """Close the writers."""
        for sink in self.sinks:
            sink.writer.close()

    def lead_history(self) -> None:
        """Tell the history where the current state stands: see `HistoryWriter.follow`."""
        if self.history is not None and isinstance(self.history.writer, HistoryWriter):
            self.history.writer.follow(self.writer.snapshot)


class Tables:
    """Opens, hands out and closes the tables of a pipeline. Not thread-safe."""

    def __init__(
        self,
        spec: PipelineSpec,
        stores: ObjectStoreSettings,
        cache_dir: Path,
        describe_topic: Callable[[str], TopicIdentity],
        schemas: SchemaCache | None = None,
    ) -> None:
        """`schemas` may outlive the tables: what it knows spares looking for types again."""
        self._spec = spec
        self._stores = stores
        self._cache_dir = cache_dir
        self._describe_topic = describe_topic
        self._schemas = schemas or SchemaCache()
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
            known.refresh()  # another writer may have had the partition meanwhile
        table = self._current(topic)
        if table is None:
            return held()[0]
        # Asked for after the table is read: another writer may still move the table, never past the topic's end.
        low, high = held()
        return table.start_offset(partition, low, high)

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
        if self._spec.sink.history:
            _check_name(collection)
        change = _change_topic(topic, self._describe_topic(topic))
        table = Table(collection, self._sink(WRITERS[self._spec.sink.mode], collection, change))
        self._tables[topic] = table
        if self._spec.sink.history:
            table.history = self._sink(HistoryWriter, collection, change)
            table.lead_history()
        return table

    def _sink(self, kind: type[DeltaWriter], collection: Collection, topic: ChangeTopic) -> Sink:
        identity = TableIdentity(self._spec.name, collection.database, collection.name)
        history = kind is HistoryWriter
        location = table_location(self._spec, self._stores, collection, history=history)
        writer = kind(location, identity, topic, self._cache_dir)
        schemas = SchemaManager(writer, collection.name, self._spec.evolution, self._schemas)
        return Sink(collection.name + HISTORY_SUFFIX * history, writer, schemas)

    def _close(self, topic: str) -> None:
        table = self._tables.pop(topic, None)
        if table is not None:
            table.close()


def _check_name(collection: Collection) -> None:
    if collection.name.endswith(HISTORY_SUFFIX):
        raise Fatal(
            f"the table of collection {collection.database}.{collection.name} would go where the history of "
            f"{collection.name.removesuffix(HISTORY_SUFFIX)} goes: exclude it from the pipeline, rename it, or set "
            "sink.history to false"
        )


def _change_topic(name: str, identity: TopicIdentity) -> ChangeTopic:
    return ChangeTopic(name, identity.id, identity.partitions)
