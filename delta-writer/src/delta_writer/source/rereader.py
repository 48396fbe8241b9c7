"""Answers re-read requests: reads the documents that they name, so that they can be applied as any other event.

A request stands in the partition of its document's events. The document is read after the request was read from Kafka,
so a change that the read does not show has its event behind the request: whatever the request does to the row is put
right by what comes later. The last event of a key in a batch wins as always, be it a request or not.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import REREAD
from cdc_shared.kafka.topics import change_topic
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.source.document_reader import DocumentRead, read_documents
from cdc_shared.source.mongodb_source import MongodbSource
from delta_writer.consumer.event_handler import ReadEvents

NOT_THIS_TOPICS: Final = "a re-read request for a collection that the pipeline does not capture to this topic"


class Rereader:
    """Reads what the requests of a batch ask for. `source` is asked only when there are some."""

    def __init__(self, spec: PipelineSpec, source: MongodbSource) -> None:
        self._spec = spec
        self._source = source

    def answer(self, topic: str, read: ReadEvents, between: Callable[[], None] = lambda: None) -> ReadEvents:
        """Return the events with the requests' documents in their places: None where the source has none, a delete.

        A request that can never be answered is in `rejected` instead. `between` is called between queries. Raises
        `Transient` and `Fatal` as `MongodbSource.asking` does; then nothing was answered.
        """
        if not read.has_requests:
            return read
        wanted: dict[Collection, list[int]] = {}
        refused: dict[int, str] = {}
        for i, op in enumerate(read.events.ops):
            if op == REREAD and self._is_of(topic, read.sources[i]):
                wanted.setdefault(read.sources[i], []).append(i)
            elif op == REREAD:
                refused[i] = NOT_THIS_TOPICS
        found: dict[int, DocumentRead] = {}
        for collection, events in wanted.items():
            answer = read_documents(self._source, collection, [read.events.keys[i] for i in events], between)
            for i in events:
                key = read.events.keys[i]
                if key in answer.refused:
                    refused[i] = answer.refused[key]
                else:
                    found[i] = answer.read[key]
        return _answered(read, found, refused)

    def _is_of(self, topic: str, collection: Collection) -> bool:
        source = self._spec.source
        return (
            collection.database == source.database
            and source.captures(collection.name)
            and change_topic(self._spec.name, collection.database, collection.name) == topic
        )


def _answered(read: ReadEvents, found: Mapping[int, DocumentRead], refused: Mapping[int, str]) -> ReadEvents:
    """Put the documents in their places and take out the events that are refused."""
    events = read.events
    documents = [found[i].text if i in found else document for i, document in enumerate(events.documents)]
    source_ts_ms = [found[i].source_ts_ms if i in found else at_ms for i, at_ms in enumerate(events.source_ts_ms)]
    answered = replace(read, events=replace(events, documents=documents, source_ts_ms=source_ts_ms), has_requests=False)
    return answered.without({i: Rejection(ReasonCode.REREAD_REFUSED, why) for i, why in refused.items()})
