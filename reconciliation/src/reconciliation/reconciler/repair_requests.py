"""What a repair asks of Kafka and of the table, for one collection."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Collected

from confluent_kafka.admin import AdminClient
from obstore.store import ObjectStore

from cdc_shared.dead_letters.dead_letters import DeadLetters, Replayed
from cdc_shared.dead_letters.letter import Letter, LetterFilter, Place
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.kafka.reread_requests import RereadsRequested, request_rereads
from cdc_shared.kafka.topics import change_topic, topic_id
from cdc_shared.models.collection import Collection
from reconciliation.sources.deltalake_reader import PinnedTable

REASON = "repair by reconciliation"

LettersOf = Callable[[Collected[str]], Mapping[str, Sequence[Letter]]]
"""Keys as the table has them → the dead letters that stand, of those keys that have some."""


class CollectionRequests:
    """See `repair_engine.Requests`. Not thread-safe."""

    def __init__(
        self,
        bootstrap_servers: str,
        pipeline: str,
        collection: Collection,
        store: ObjectStore,
        letters: LettersOf,
        dead_letters: DeadLetters,
    ) -> None:
        """`store` is the table's. Raises `UnknownTopic` when the collection has no change topic."""
        self._kafka = bootstrap_servers
        self._pipeline = pipeline
        self._collection = collection
        self._store = store
        self._letters = letters
        self._dead_letters = dead_letters
        name = change_topic(pipeline, collection.database, collection.name)
        admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 5})
        self._topic = ChangeTopic(name, *topic_id(admin, name))

    def ask(self, source_keys: Sequence[str]) -> RereadsRequested:
        where = self._collection
        return request_rereads(self._kafka, self._pipeline, where.database, where.name, source_keys, reason=REASON)

    def letters(self, keys: Collected[str]) -> Mapping[str, Sequence[Letter]]:
        return self._letters(keys)

    def replay(self, places: frozenset[Place]) -> Replayed:
        return self._dead_letters.replay(LetterFilter(places=places))

    def applied(self) -> Mapping[int, int]:
        return PinnedTable.newest(self._store, self._topic).positions
