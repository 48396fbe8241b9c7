"""What people do with dead letters: list them, look into one, try them again, give them up.

Any number of letters may stand: they are read as a stream, and no more than a few hundred are in memory at a time.
Everything may be repeated, also after an interruption: what is done with is no longer there.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, Protocol

from confluent_kafka.admin import AdminClient

from cdc_shared.dead_letters.applied_events import AppliedEvents
from cdc_shared.dead_letters.inspection import ShownLetter, shown_record
from cdc_shared.dead_letters.lake_records import ContentGone, delete_from_lake, get_from_lake
from cdc_shared.dead_letters.letter import ALL_LETTERS, Letter, LetterFilter, ListedLetter, Place, StoredLetter
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.replay_records import CannotReplay, replay_records
from cdc_shared.dead_letters.sealed_record import RawRecord, unseal
from cdc_shared.dead_letters.sending import Marks, Outgoing, Transactions
from cdc_shared.errors import CdcError, Fatal
from cdc_shared.kafka.spec_topic import UnknownPipeline
from cdc_shared.kafka.topics import (
    DEAD_LETTERS_TOPIC,
    TopicIdentity,
    UnknownTopic,
    partition_for,
    topic_config,
    topic_id,
)
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.security.crypto import DecryptionFailed
from cdc_shared.security.data_key import DataKeys, UnknownDataKey
from cdc_shared.settings import ObjectStoreSettings

LETTERS_AT_ONCE: Final = 500
BYTES_AT_ONCE: Final = 16 * 1024 * 1024
SHOWN_REFUSALS: Final = 20
RECORD_OVERHEAD_BYTES: Final = 1024
"""Kafka counts more than key and value against `max.message.bytes`."""

Which = LetterFilter | Place
Progress = Callable[[int], None]
"""Called with how many letters were dealt with so far."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some letters, oldest first. `next_after`: what to give as `after` for those that follow; None: there are none."""

    letters: list[ListedLetter]
    next_after: int | None


@dataclass(slots=True)
class Replayed:
    """What became of letters that were to be tried again.

    Attributes:
        replayed: how many were sent and are done with.
        refused: how many cannot be, by reason; they stand as they did.
        examples: the first `SHOWN_REFUSALS` of those, with the reason.
    """

    replayed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[Place, str]] = field(default_factory=list)


class TopicFacts(Protocol):
    """What replaying needs to know of a change topic."""

    def identity(self, topic: str) -> TopicIdentity:
        """Its id, and how many partitions it has. Raises `UnknownTopic`."""

    def max_record_bytes(self, topic: str) -> int:
        """The largest record that it takes."""


class _Described(NamedTuple):
    """What was learned of topics, tables and pipelines in the course of one replay."""

    facts: TopicFacts
    applied: AppliedEvents
    specs: dict[str, PipelineSpec | CannotReplay]


class DeadLetters:
    """The dead letters of every pipeline. Not thread-safe."""

    def __init__(
        self,
        topic: LetterTopic,
        facts: Callable[[], TopicFacts],
        keys: Callable[[], DataKeys],
        stores: ObjectStoreSettings,
        spec_of: Callable[[str], PipelineSpec],
        transactions: Callable[[], Transactions],
        marks: Callable[[], Marks],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keys` is asked when a letter is to be opened; `spec_of` raises `UnknownPipeline`; `clock` in seconds."""
        self._topic = topic
        self._facts = facts
        self._keys = keys
        self._stores = stores
        self._spec_of = spec_of
        self._transactions = transactions
        self._marks = marks
        self._clock = clock

    @classmethod
    def on(
        cls,
        bootstrap_servers: str,
        keys: Callable[[], DataKeys],
        stores: ObjectStoreSettings,
        spec_of: Callable[[str], PipelineSpec],
    ) -> "DeadLetters":
        """Those of this Kafka."""
        return cls(
            LetterTopic.on(bootstrap_servers),
            lambda: KafkaTopicFacts(AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 5})),
            keys,
            stores,
            spec_of,
            lambda: Transactions.on(bootstrap_servers),
            lambda: Marks.on(bootstrap_servers),
        )

    def list_letters(self, which: LetterFilter = ALL_LETTERS, limit: int = 100, after: int = -1) -> LetterPage:
        """Up to `limit` of the letters that are meant, behind `after`. Needs no key. Raises `Transient`, `Fatal`."""
        letters = self._topic.letters(which, after)
        page = [ListedLetter(each.letter, each.offset, each.written_ms) for each in islice(letters, limit)]
        more = next(letters, None) is not None
        return LetterPage(page, page[-1].offset if page and more else None)

    def count(self, which: Which) -> int:
        """How many letters are meant. Needs no key. Raises `NoLetter`, `Transient`, `Fatal`."""
        return sum(1 for _ in self._meant(which))

    def show(self, place: Place, *, reveal: bool = False) -> ShownLetter:
        """One letter and what is in it, masked unless `reveal`: whoever calls must see to it that it is permitted.

        Raises `NoLetter`, `UnknownDataKey`, `DecryptionFailed`, `Fatal` when its content is gone, `Transient`.
        """
        stored = self._topic.letter(place)
        key, value = shown_record(self._record(stored, self._keys()), reveal=reveal)
        return ShownLetter(stored.letter, stored.written_ms, key, value, reveal)

    def replay(self, which: Which, progress: Progress = lambda _: None) -> Replayed:
        """Try letters again: see `replay_records`. Those that were sent are done with.

        Raises:
            NoLetter: the one that is meant does not stand.
            CannotReplay: the one that is meant cannot be tried again.
            Transient, Fatal: Kafka or the store; what was sent until then is done with, the others stand.
        """
        # Begun before the letters are looked at: what an earlier process had under way is settled by then.
        keys, transactions, facts = self._keys(), self._transactions(), self._facts()
        described = _Described(facts, AppliedEvents(self._stores, facts.identity), {})
        result = Replayed()
        chunk: list[tuple[Letter, list[Outgoing]]] = []
        chunk_bytes = 0
        for stored in self._meant(which):
            try:
                outgoing = self._outgoing(stored, keys, described)
            except CannotReplay as error:
                if isinstance(which, Place):
                    raise CannotReplay(f"dead letter {which} cannot be replayed: {error}") from None
                self._refuse(result, stored.letter.place, str(error))
                continue
            chunk.append((stored.letter, outgoing))
            chunk_bytes += sum(len(each.value or b"") for each in outgoing)
            if len(chunk) >= LETTERS_AT_ONCE or chunk_bytes >= BYTES_AT_ONCE:
                self._send(transactions, chunk, result, progress)
                chunk, chunk_bytes = [], 0
        self._send(transactions, chunk, result, progress)
        return result

    def discard(self, which: Which, progress: Progress = lambda _: None) -> int:
        """Give letters up; how many. Their content is deleted with them.

        Raises `NoLetter`, `Transient`, `Fatal`: what was given up until then is.
        """
        marks = self._marks()
        discarded = 0
        letters = iter(self._meant(which))
        while chunk := [each.letter for each in islice(letters, LETTERS_AT_ONCE)]:
            marks.send([_done(each) for each in chunk])
            self._forget_content(chunk)
            discarded += len(chunk)
            progress(discarded)
        return discarded

    def _meant(self, which: Which) -> Iterator[StoredLetter]:
        return iter([self._topic.letter(which)]) if isinstance(which, Place) else self._topic.letters(which)

    def _record(self, stored: StoredLetter, keys: DataKeys) -> RawRecord:
        letter = stored.letter
        sealed = stored.value if letter.lake_url is None else get_from_lake(letter, self._stores)
        return unseal(sealed, letter, keys)

    def _outgoing(self, stored: StoredLetter, keys: DataKeys, described: "_Described") -> list[Outgoing]:
        """What to send for a letter, and that it is done with. Raises `CannotReplay`."""
        letter = stored.letter
        topic = letter.place.topic
        spec = self._spec(letter.pipeline, described.specs)
        try:
            record = self._record(stored, keys)
            partitions = described.facts.identity(topic).partitions
            records = replay_records(letter, record, spec, int(self._clock() * 1000), described.applied.in_history)
        except UnknownTopic:
            raise CannotReplay(f"there is no topic {topic} any more") from None
        except (UnknownDataKey, DecryptionFailed, ContentGone) as error:
            raise CannotReplay(str(error)) from None
        largest = max(len(each.key) + len(each.value) for each in records) + RECORD_OVERHEAD_BYTES
        if (limit := described.facts.max_record_bytes(topic)) < largest:
            raise CannotReplay(
                f"the event is larger than topic {topic} takes ({limit:,} bytes); raise the topic's max.message.bytes"
            )
        sent = [Outgoing(topic, partition_for(key, partitions), key, value) for key, value in records]
        return [*sent, _done(letter)]

    def _spec(self, pipeline: str, specs: dict[str, PipelineSpec | CannotReplay]) -> PipelineSpec:
        if pipeline not in specs:
            try:
                specs[pipeline] = self._spec_of(pipeline)
            except (UnknownPipeline, InvalidSpec) as error:
                specs[pipeline] = CannotReplay(str(error))
        spec = specs[pipeline]
        if isinstance(spec, CannotReplay):
            raise spec
        return spec

    def _send(
        self,
        transactions: Transactions,
        chunk: list[tuple[Letter, list[Outgoing]]],
        result: Replayed,
        progress: Progress,
    ) -> None:
        if not chunk:
            return
        transactions.send([each for _, outgoing in chunk for each in outgoing])
        self._forget_content([letter for letter, _ in chunk])
        result.replayed += len(chunk)
        progress(result.replayed + result.refused.total())

    def _forget_content(self, letters: list[Letter]) -> None:
        """Delete what lies in the lake. What cannot be deleted now goes when it is older than letters are kept."""
        for letter in letters:
            if letter.lake_url is not None:
                try:
                    delete_from_lake(letter, self._stores)
                except CdcError as error:
                    log.warning("content of a dead letter not deleted", letter=str(letter.place), reason=str(error))

    @staticmethod
    def _refuse(result: Replayed, place: Place, reason: str) -> None:
        result.refused[reason] += 1
        if len(result.examples) < SHOWN_REFUSALS:
            result.examples.append((place, reason))


class KafkaTopicFacts:
    """See `TopicFacts`; each topic is asked about once."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._identities: dict[str, TopicIdentity] = {}
        self._max_bytes: dict[str, int] = {}

    def identity(self, topic: str) -> TopicIdentity:
        """See `TopicFacts`."""
        if topic not in self._identities:
            self._identities[topic] = topic_id(self._admin, topic)
        return self._identities[topic]

    def max_record_bytes(self, topic: str) -> int:
        """See `TopicFacts`."""
        if topic not in self._max_bytes:
            limit = topic_config(self._admin, topic).get("max.message.bytes")
            if limit is None:
                raise Fatal(f"Kafka does not say how large a record topic {topic} takes")
            self._max_bytes[topic] = int(limit)
        return self._max_bytes[topic]


def _done(letter: Letter) -> Outgoing:
    return Outgoing(DEAD_LETTERS_TOPIC, 0, str(letter.place).encode(), None)
