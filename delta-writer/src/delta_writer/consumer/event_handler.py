"""Raw records of one topic → change events, and the records that can never be applied."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from cdc_shared.dead_letters.rejection import Rejection
from cdc_shared.documents import REREAD, decode_envelopes
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.validators.dirty_data_detector import undecodable
from delta_writer.writer.batch_processor import RecordBatch


@dataclass(frozen=True, slots=True)
class Collection:
    """Where a document lives in MongoDB, as the event itself says (a topic's name may have been sanitised)."""

    database: str
    name: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be applied: where it lay, its raw bytes, and why."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    rejection: Rejection


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
    )
    collection = cache(Collection)  # few of them, many events
    sources = [collection(envelopes.databases[i], envelopes.collections[i]) for i in positions]
    return ReadEvents(events, positions, sources, undecodable(envelopes), REREAD in ops)


def dead_letter(batch: RecordBatch, position: int, rejection: Rejection) -> DeadLetter:
    """Return the dead letter of one record of the batch."""
    return DeadLetter(
        batch.topic,
        batch.partitions[position],
        batch.offsets[position],
        batch.keys[position],
        batch.values[position],
        rejection,
    )
