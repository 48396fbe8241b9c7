"""A source, a connector, Kafka, a writer and somebody who damages the table, interleaved at random around `settle`.

Time is the source's, in tenths of a second; operation times and watermarks are whole seconds, as MongoDB's are. The
connector looks documents up when it sends an update, sends some changes twice after a restart, and leaves gaps in the
offsets. The writer takes some events of some partitions at a time; it reads the document of a re-read request when it
comes to it. Every question that `settle` asks, and every wait of its, lets the world go on a little.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

import bson

from cdc_shared.dead_letters.letter import Letter
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.documents import DocumentSchema, Field, document_text
from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.models.reconciliation import DifferenceKind
from cdc_shared.source.document_reader import DocumentRead, DocumentsRead
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.generations import Evidence, ScanWindow
from reconciliation.reconciler.result import TopicPositions
from reconciliation.reconciler.rules_versions import RulesVersions
from reconciliation.sources.deltalake_reader import KeyHash, RowLocation, StoredRow

SCHEMA: Final = DocumentSchema((Field("_id", t.LONG), Field("v", t.LONG)))
TOPIC_ID: Final = "topic"
SECRET: Final = b"a key that has enough bytes"
MASKED: Final = QualitySpec.model_validate(
    {"version": 1, "transformation": [{"rule": "hash", "path": "/_id", "key": "env:KEY"}]}
)
MASKED_SCHEMA: Final = DocumentSchema((Field("_id", t.STRING), Field("v", t.LONG)))
TENTHS: Final = 10


class Change(NamedTuple):
    """An entry of the oplog; `key` None is a sentinel. `value` None is a delete."""

    at: int
    key: int | None
    value: int | None


class Event(NamedTuple):
    """A record of the change topic; `op` as in Debezium, and x for a re-read request."""

    offset: int
    key: int
    op: str
    value: int | None


@dataclass
class Version:
    """One version of the table. `rows` has every row's value by key, `right` what they would be without damage."""

    version: int
    rows: dict[int, list[int]]
    right: dict[int, int]
    positions: dict[int, int]
    watermark_ms: int | None
    schema: DocumentSchema
    partition_base: int = 0
    masked_by: int = 0

    def is_damaged(self, key: int) -> bool:
        """Whether the key's rows are others than an undisturbed writer would have made."""
        return self.rows.get(key, []) != ([self.right[key]] if key in self.right else [])


@dataclass
class World:
    """`busy`: so many things may happen between two questions."""

    random: Random
    keys: int = 24
    partitions: int = 2
    masked: bool = False
    busy: int = 6
    writes_until: int = 400
    damages_until: int = 0
    steps: int = 0
    now: int = 0
    documents: dict[int, int] = field(default_factory=dict)
    oplog: list[Change] = field(default_factory=list)
    streamed: int = 0
    claims: list[tuple[int, dict[int, int]]] = field(default_factory=list)
    pinned: Version | None = None
    looked_at: dict[int, Version] = field(default_factory=dict)
    """Key → the version in which its rows were asked for last."""

    def __post_init__(self) -> None:
        self.events: dict[int, list[Event]] = {p: [] for p in range(self.partitions)}
        self.ends = dict.fromkeys(range(self.partitions), 0)
        self.batch = self.random.choice([2, 6, 40])
        self.writer = self.random.choice([1, 5])
        schema = MASKED_SCHEMA if self.masked else SCHEMA
        self.table = Version(0, {}, {}, dict.fromkeys(range(self.partitions), 0), None, schema)
        self.rules = RulesVersions(
            "p", "c", MASKED if self.masked else QualitySpec(), lambda: {1: MASKED}, lambda _: SECRET
        )
        self.texts = {key: str(key) for key in range(self.keys)}
        hashes = hash_keys(map(self.rules.newest.rules.key_text, self.texts.values())).tolist()
        self.hashes: dict[int, KeyHash] = {key: (high, low) for key, (high, low) in enumerate(hashes)}
        self.by_hash = {each: key for key, each in self.hashes.items()}

    # -- what happens --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        self.steps += 1
        self.now += self.random.randrange(3)
        things: list[tuple[int, Callable[[], None]]] = [
            (5, self.stream), (self.writer, self.write_table), (2, self.sentinel), (1, self.restart_connector),
        ]  # fmt: skip
        if self.steps < self.writes_until:
            things += [(4, self.change), (1, self.ask_again)]
        if self.steps < self.damages_until:
            things.append((1, self.damage))
        self.random.choices([each for _, each in things], [weight for weight, _ in things])[0]()

    def go_on(self) -> None:
        """Let a few things happen."""
        for _ in range(self.random.randrange(self.busy + 1)):
            self.step()

    def some_key(self) -> int:
        """Some change all the time, some hardly ever."""
        return int(self.keys * self.random.random() ** 3)

    def change(self) -> None:
        key = self.some_key()
        # Few values, so that a document often comes back to one that it had.
        value = None if key in self.documents and self.random.random() < 0.3 else self.random.randrange(3)
        if value is None:
            del self.documents[key]
        else:
            self.documents[key] = value
        self.oplog.append(Change(self.now, key, value))

    def sentinel(self) -> None:
        self.oplog.append(Change(self.now, None, None))

    def ask_again(self) -> None:
        self._produce(self.some_key(), "x", None)

    def stream(self) -> None:
        for change in self.oplog[self.streamed : self.streamed + self.random.randrange(1, 5)]:
            self.streamed += 1
            if change.key is None:
                self.claims.append((change.at // TENTHS, dict(self.ends)))
            elif change.value is None:
                self._produce(change.key, "d", None)
            elif self.random.random() < 0.5:  # a replace: the oplog has the document
                self._produce(change.key, "c", change.value)
            else:  # an update: it is looked up now, and may be gone
                self._produce(change.key, "u", self.documents.get(change.key))

    def restart_connector(self) -> None:
        self.streamed = max(0, self.streamed - self.random.randrange(4))

    def _produce(self, key: int, op: str, value: int | None) -> None:
        partition = key % self.partitions
        offset = self.ends[partition] + self.random.choice([0, 0, 1, 2])  # markers of transactions
        self.events[partition].append(Event(offset, key, op, value))
        self.ends[partition] = offset + 1

    def write_table(self) -> None:
        """The next version: some events more."""
        table = self._copy()
        for partition in range(self.partitions):
            waiting = [each for each in self.events[partition] if each.offset >= table.positions[partition]]
            taken = waiting[: self.random.randrange(self.batch)]
            for event in taken:
                self._apply(table, event)
            if taken:
                table.positions[partition] = taken[-1].offset + 1
            if len(taken) == len(waiting):
                table.positions[partition] = self.ends[partition]
        reached = [s for s, ends in self.claims if all(table.positions[p] >= end for p, end in ends.items())]
        if reached:
            table.watermark_ms = max(table.watermark_ms or 0, max(reached) * 1000)
        self.table = table

    def _apply(self, table: Version, event: Event) -> None:
        if event.op == "u" and event.value is None:
            return
        value = self.documents.get(event.key) if event.op == "x" else event.value
        if value is None:
            table.rows.pop(event.key, None)
            table.right.pop(event.key, None)
        else:
            table.rows[event.key] = [value]
            table.right[event.key] = value

    def damage(self) -> None:
        """A commit by another program: a row lost, one too many, twice, or with another value."""
        table = self._copy()
        key = self.random.randrange(self.keys)
        rows = table.rows.get(key, [])
        damages = [[], [7], [*rows, *rows], [*rows, 8]]
        table.rows[key] = self.random.choice([each for each in damages if each != rows])
        if not table.rows[key]:
            del table.rows[key]
        self.table = table

    def _copy(self) -> Version:
        old = self.table
        rows = {key: list(values) for key, values in old.rows.items()}
        return Version(old.version + 1, rows, dict(old.right), dict(old.positions), old.watermark_ms, old.schema)

    # -- a run of reconciliation ---------------------------------------------------------------------------------------

    def scan(self) -> tuple[list[Candidate], ScanWindow]:
        """Scan table and source while the world goes on; return what does not agree, and when."""
        before = self.table.positions
        self.pinned = pinned = self.table
        seen: dict[int, int | None] = {}
        for key in range(self.keys):
            self.go_on()
            seen[key] = self.documents.get(key)
        candidates = [
            self._candidate(key, pinned, value)
            for key, value in seen.items()
            if pinned.rows.get(key, []) != ([] if value is None else [value])
        ]
        self.random.shuffle(candidates)
        return candidates, ScanWindow(TopicPositions(TOPIC_ID, dict(before)), self.operation_ms())

    def _candidate(self, key: int, pinned: Version, value: int | None) -> Candidate:
        rows = pinned.rows.get(key, [])
        kind = DifferenceKind.EXTRA if value is None else DifferenceKind.DIFFERENT
        source_key = None if value is None else self.texts[key]
        return Candidate(kind, self.hashes[key], source_key, None, (RowLocation("f", key),) * len(rows), len(rows))

    def operation_ms(self) -> int:
        return self.now // TENTHS * 1000

    def evidence(self) -> Evidence:
        return Evidence(_Events(self), self._read, _Table(self), self.rules, self._letters)

    def _read(self, keys: Collection[str]) -> DocumentsRead:
        self.go_on()
        found = DocumentsRead()
        for text in keys:
            value = self.documents.get(int(text))
            raw = None if value is None else bson.encode({"_id": int(text), "v": value})
            found.read[text] = DocumentRead(None if raw is None else document_text(raw), 0, raw)
            if self.random.random() < 0.2:
                self.go_on()
        ended_ms = self.operation_ms()
        self.go_on()
        read = {text: DocumentRead(each.text, ended_ms, each.raw) for text, each in found.read.items()}
        return DocumentsRead(read)

    @staticmethod
    def _letters(_: Collection[str]) -> Mapping[str, Sequence[Letter]]:
        return {}

    def settle_down(self) -> None:
        """No change any more: let everything come into the table."""
        self.writes_until = self.damages_until = 0
        while self.streamed < len(self.oplog) or self.table.positions != self.ends:
            self.step()


@dataclass
class _Events:
    world: World

    def ends(self) -> TopicPositions:
        self.world.go_on()
        return TopicPositions(TOPIC_ID, dict(self.world.ends))

    def keys_between(self, start: TopicPositions, end: Mapping[int, int]) -> Collection[str]:
        self.world.go_on()
        return {
            self.world.texts[event.key]
            for partition, events in self.world.events.items()
            for event in events
            if start.offsets[partition] <= event.offset < end[partition]
        }


@dataclass
class _Table:
    world: World

    def newest(self, _: TopicPositions) -> Version:
        self.world.go_on()
        return self.world.table

    def is_whole(self, _: Any) -> bool:
        return True

    def rows(self, table: Any, wanted: Mapping[KeyHash, Sequence[Any]]) -> Iterator[tuple[KeyHash, StoredRow]]:
        self.world.go_on()
        for key_hash in wanted:
            key = self.world.by_hash[key_hash]
            self.world.looked_at[key] = table
            for value in table.rows.get(key, []):
                yield key_hash, self._row(key, value)

    def _row(self, key: int, value: int) -> StoredRow:
        rules = self.world.rules.newest.rules
        text = self.world.texts[key]
        document: Any = rules.transform_document({"_id": key, "v": value})
        values = {
            **document, "_cdc_key": rules.key_text(text), "_cdc_rescued": None, "_cdc_partition": 0, "_cdc_offset": 0,
            "_cdc_rules_version": rules.version or None,
        }  # fmt: skip
        return StoredRow(RowLocation("f", key), values)
