"""Whether a history has a letter's event already.

A letter is acknowledged before the batch that it came from is committed. When that failed, and corrected rules have
applied the event since, the letter still stands.
"""

from collections.abc import Callable

from cdc_shared.dead_letters.event_rows import EventRows
from cdc_shared.dead_letters.letter import Letter
from cdc_shared.dead_letters.replay_records import CannotReplay
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.models.common import HISTORY_SUFFIX, PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store, table_url


class AppliedEvents:
    """Looks into the tables as they were when they were first asked about: make one for each replay."""

    def __init__(self, stores: ObjectStoreSettings, identity: Callable[[str], TopicIdentity]) -> None:
        """`identity` is asked for a topic's."""
        self._stores = stores
        self._identity = identity
        self._tables: dict[str, EventRows] = {}

    def in_history(self, letter: Letter, spec: PipelineSpec, collection: str, source_ts_ms: int) -> bool:
        """Tell whether the collection's history has the letter's event, which has that source time.

        Raises:
            CannotReplay: a batch with the event is yet to be committed. It may become a row then, and before the table
                of the current state has it, the letter may be written once more.
            UnknownTopic, Transient, Fatal: Kafka or the store.
        """
        _, partition, offset = letter.place
        topic = self._identity(letter.place.topic)
        history = self._table(spec, collection + HISTORY_SUFFIX)
        if history.holds(topic, partition, offset, source_ts_ms):
            return True
        if all(each.has_read(topic, partition, offset) for each in (history, self._table(spec, collection))):
            return False
        raise CannotReplay(
            "its batch is not yet in the tables, and may bring the event to the history: replay it when the writer has "
            "gone on beyond it. If the topic was made again since, ask for the document by `delta-writer reread "
            f"{spec.name} {collection} ID`, and discard the letter"
        )

    def _table(self, spec: PipelineSpec, name: str) -> EventRows:
        url = table_url(self._stores.root_for(spec.sink.root), spec.name, spec.source.database, name)
        if url not in self._tables:
            self._tables[url] = EventRows(open_store(url, self._stores), url)
        return self._tables[url]
