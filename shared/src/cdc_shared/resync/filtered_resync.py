"""A resync of the documents that match a filter: re-read requests for them, and no snapshot.

The stream does not pause, and only the documents that match *now* are read again. A row whose document is gone, or
matches no longer, is not found in this way: for that the whole collection is resynced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import AdminClient

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import table_location
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.reread_requests import request_rereads
from cdc_shared.kafka.topics import change_topic, held_offsets, topic_id
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.snapshots.table_state import has_arrived
from cdc_shared.snapshots.topic_positions import TopicPositions
from cdc_shared.source.document_filter import Filter, matching_keys
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.storage.object_store import store_errors

MAX_DOCUMENTS: Final = 100_000
"""A request for each is kept in Kafka, and each is read by itself: for more a snapshot is cheaper."""
SHOWN_FAILURES: Final = 3


@dataclass(frozen=True, slots=True)
class RereadsAsked:
    """How many documents will be read again, and where their requests lie: before `ends`, by partition."""

    documents: int
    topic: ChangeTopic
    ends: Mapping[int, int]


def ask_for_matching(
    spec: PipelineSpec, collection: str, filter_: Filter, source: MongodbSource, bootstrap_servers: str, reason: str
) -> RereadsAsked:
    """Ask the writer to read again what matches. May be repeated: a document is then read twice.

    Args:
        collection: without its database.
        reason: why, for people; no document's content.

    Raises:
        Fatal: the collection is not captured or has no topic, or see `matching_keys`. Nothing was asked then.
        Transient: the source or Kafka is away, or Kafka did not acknowledge all.
    """
    if not spec.source.captures(collection):
        raise Fatal(f"pipeline {spec.name} does not capture {collection}; correct the name, or the spec")
    database = spec.source.database
    keys = matching_keys(source, Collection(database, collection), filter_, MAX_DOCUMENTS)
    sent = request_rereads(bootstrap_servers, spec.name, database, collection, keys, reason=reason)
    if sent.failed:
        why = "; ".join(sorted(set(sent.failed.values()))[:SHOWN_FAILURES])
        raise Transient(f"{len(sent.failed):,} of {len(keys):,} re-read requests were not acknowledged: {why}")
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    name = change_topic(spec.name, database, collection)
    topic = ChangeTopic(name, *topic_id(admin, name))
    ends = {partition: end for partition, (_, end) in held_offsets(admin, name, topic.partitions).items()}
    return RereadsAsked(len(keys), topic, ends)


def are_answered(
    spec: PipelineSpec, collection: str, asked: RereadsAsked, stores: ObjectStoreSettings, positions: TopicPositions
) -> bool:
    """Tell whether the collection's table holds what was read again. Raises `Transient` or `Fatal`."""
    if not asked.documents:
        return True
    location = table_location(spec, stores, Collection(spec.source.database, collection))
    with store_errors(f"reading the log of {location.url}"):
        table = DeltaLog(location.store).load()
    return has_arrived(table, asked.topic, asked.ends, positions.has_change)
