"""Raw records of one topic → change events, and the records that can never be applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from cdc_shared.dead_letters.rejection import Rejection
from cdc_shared.documents import REREAD, Replay, decode_envelopes
from cdc_shared.models.collection import Collection
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.validators.dirty_data_detector import undecodable
from delta_writer.writer.batch_processor import RecordBatch


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be applied: where it lay, its raw bytes, and why.

    `collection` is the collection's name where it is certain. `replay`: the record was sent to try a letter again.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    rejection: Rejection
    collection: str | None = None
    replay: Replay | None = None


@dataclass(frozen=True, slots=True)
class ReadEvents:
    """What a record batch holds.

    Event `i` was read from record `positions[i]` and is of `sources[i]`; `rejected` says of records why not. An event
    whose op is `x` is a re-read request: its document is yet to be read (`source.rereader`), so events must not be
    applied while `has_requests`.
    """

    events: ChangeEvents
    positions: list[int]
    sources: list[Collection]
    rejected: Mapping[int, Rejection]
    has_requests: bool

    @property
    def collections(self) -> frozenset[Collection]:
        """The collections of the events."""
        return frozenset(self.sources)

    def without(self, rejected: Mapping[int, Rejection]) -> "ReadEvents":
        """Return what is left when events (by their place) are rejected."""
        if not rejected:
            return self
        kept = [i for i in range(len(self.events)) if i not in rejected]
        return replace(
            self,
            events=self.events.taken(kept),
            positions=[self.positions[i] for i in kept],
            sources=[self.sources[i] for i in kept],
            rejected={**self.rejected, **{self.positions[i]: why for i, why in rejected.items()}},
        )


def read_events(batch: RecordBatch) -> ReadEvents:
    """Read the envelopes of a batch. Tombstones and updates without a document (their delete follows) change no row."""
    envelopes = decode_envelopes(batch.keys, batch.values)
    positions = [i for i, op in enumerate(envelopes.ops) if op is not None]
    ops = [op for op in envelopes.ops if op is not None]
    events = ChangeEvents(
        keys=[envelopes.key_texts[i] for i in positions],
        documents=[envelopes.afters[i] for i in positions],
        source_ts_ms=[envelopes.source_ts_ms[i] for i in positions],
        partitions=[batch.partitions[i] for i in positions],
        offsets=[batch.offsets[i] for i in positions],
        ops=ops,
        ranges=batch.ranges,
        must_commit=batch.must_commit,
        watermarks=batch.watermarks,
        history_only=_history_only(envelopes.replays, positions, ops),
    )
    collection = cache(Collection)  # few of them, many events
    sources = [collection(envelopes.databases[i], envelopes.collections[i]) for i in positions]
    return ReadEvents(events, positions, sources, undecodable(envelopes), REREAD in ops)


def _history_only(replays: Mapping[int, Replay], positions: Sequence[int], ops: Sequence[str]) -> frozenset[int]:
    if not any(each.history_only for each in replays.values()):
        return frozenset()
    events = {position: i for i, position in enumerate(positions)}
    return frozenset(
        events[position]
        for position, each in replays.items()
        if each.history_only and position in events and ops[events[position]] != REREAD
    )


def dead_letter(
    batch: RecordBatch, position: int, rejection: Rejection, collection: Collection | None = None
) -> DeadLetter:
    """Return the dead letter of one record of the batch; `collection` where it is certain."""
    replays = decode_envelopes(batch.keys[position : position + 1], batch.values[position : position + 1]).replays
    return DeadLetter(
        batch.topic,
        batch.partitions[position],
        batch.offsets[position],
        batch.keys[position],
        batch.values[position],
        rejection,
        collection.name if collection is not None else None,
        replays.get(0),
    )
