"""One generation: documents and rows of some keys, read in an order that makes their comparison a proof.

    1. P = where the newest version of the table stands in the change topic.
    2. Each document is read by its key, linearizable, from the primary; e = the source's operation time after that.
    3. Wait until the table's watermark is later than e: everything in the source up to e is in version V'.
    4. The keys' rows in V'.
    5. The keys of the events from P to where V' stands in the topic. A key with an event there *has changed* meanwhile.

Of a key that has not changed, V' holds exactly the changes up to the moment in which its document was read: those of
before have come (3), and none of later is in V', as the event of a change is written after it, so behind P. Then the
row must be what the document says, without any guess about time.

P is not the end of the topic, though changes before that end are older than the document: a re-read request that lies
before it, but that the writer has yet to come to, reads a *newer* document. In the same way a re-read request counts as
an event of its key wherever it stands behind P.

A document's key cannot be told from a row whose `_id` is masked. If the scan of the source saw no document for it, the
scan stands for step 2: P is from before it, e from after it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cdc_shared.dead_letters.letter import Letter
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.documents import DocumentSchema
from cdc_shared.rules.compiled import Rules
from cdc_shared.source.document_reader import DocumentRead, DocumentsRead
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.result import TopicPositions
from reconciliation.reconciler.rules_versions import RulesVersions
from reconciliation.sources.changed_keys import PositionsGone
from reconciliation.sources.deltalake_reader import KeyHash, RowLocation, StoredRow

KEYS_A_READ: Final = 1_000


class TableState(Protocol):
    """One version of the table; `PinnedTable` is one."""

    @property
    def version(self) -> int: ...
    @property
    def watermark_ms(self) -> int | None: ...
    @property
    def positions(self) -> dict[int, int]: ...
    @property
    def partition_base(self) -> int: ...
    @property
    def masked_by(self) -> int: ...
    @property
    def schema(self) -> DocumentSchema: ...


class NewestTable(Protocol):
    """The table as it goes on; see `sources.newest_table.TableFollower`."""

    def newest(self, topic: TopicPositions) -> TableState:
        """Its newest version. Raises `Fatal` when it is no longer the table that was scanned."""

    def is_whole(self, table: TableState) -> bool:
        """Tell whether no snapshot is needed to make up for changes that never came."""

    def rows(
        self, table: TableState, wanted: Mapping[KeyHash, Sequence[RowLocation]]
    ) -> Iterable[tuple[KeyHash, StoredRow]]:
        """The live rows of these keys; their places in the version that was scanned save looking for them."""


class ChangeEvents(Protocol):
    """The collection's change topic; see `sources.changed_keys.ChangedKeys`."""

    def ends(self) -> TopicPositions:
        """How far it is written, uncommitted records included."""

    def keys_between(self, start: TopicPositions, end: Mapping[int, int]) -> Collection[str]:
        """Key texts of all events in a range. Raises `PositionsGone` when Kafka does not have all of it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a generation gets its facts.

    Attributes:
        documents: key texts of `_id`s → what the source's primary says of them now.
        rules: every version of the pipeline's rules for the collection.
        letters: keys as the table has them → the dead letters that stand, of those keys that have some.
    """

    events: ChangeEvents
    documents: Callable[[Collection[str]], DocumentsRead]
    table: NewestTable
    rules: RulesVersions
    letters: Callable[[Collection[str]], Mapping[str, Sequence[Letter]]]


@dataclass(frozen=True, slots=True)
class ScanWindow:
    """When the source was scanned.

    Attributes:
        before: where a version of the table stood in the change topic, or less, that was the newest at a time before
            the first chunk was read, in whatever process.
        after_ms: the source's operation time after the last chunk was read.
    """

    before: TopicPositions
    after_ms: int


@dataclass(slots=True)
class Subject:
    """A candidate on its way; `source_key` may be learned, `key` is as in the table.

    `looked_at`: when it was looked at first, by a monotonic clock.
    """

    candidate: Candidate
    source_key: str | None
    key: str | None = None
    looks: int = 0
    looked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one generation saw of a key.

    Attributes:
        document: None when the source has none.
        refused: why the document cannot be read by its key; None when it can.
        rows: in the version that the generation waited for.
        changed: an event of the key came meanwhile, so that a difference proves nothing.
    """

    subject: Subject
    document: DocumentRead | None
    refused: str | None
    rows: Sequence[StoredRow]
    changed: bool


@dataclass(frozen=True, slots=True)
class Looks:
    """What a generation saw; `table` is None when the writer did not come as far, then there are no `looks`."""

    table: TableState | None
    looks: Sequence[Look] = ()
    unread: Sequence[Subject] = field(default=())
    """Whose documents would have taken more memory than there is for them: for the next generation."""


Await = Callable[[TopicPositions, int], TableState | None]
"""(topic, source time in ms) → the first version of the table with a later watermark; None when it does not come."""


def look(subjects: Sequence[Subject], evidence: Evidence, reached: Await, max_bytes: int) -> Looks:
    """Look at keys whose source keys are known. Raises `Transient` and `Fatal` as what is asked does."""
    topic = evidence.events.ends()
    before = TopicPositions(topic.topic_id, evidence.table.newest(topic).positions)
    found, unread = _documents(subjects, evidence, max_bytes)
    read_ms = max((each.source_ts_ms for each in found.read.values()), default=0)
    table = reached(before, read_ms)
    if table is None:
        return Looks(None)
    read = [each for each in subjects if each.source_key in found.read or each.source_key in found.refused]
    return Looks(table, list(_looks(read, found, before, table, evidence)), unread)


def look_where_scanned(subjects: Sequence[Subject], scan: ScanWindow, evidence: Evidence, reached: Await) -> Looks:
    """Look at keys of rows that the scan of the source saw no document for; of what has changed, learn the source key.

    Raises as `look`.
    """
    table = reached(scan.before, scan.after_ms)
    if table is None:
        return Looks(None)
    return Looks(table, list(_looks(subjects, DocumentsRead(), scan.before, table, evidence)))


def _looks(
    subjects: Sequence[Subject], found: DocumentsRead, before: TopicPositions, table: TableState, evidence: Evidence
) -> Iterator[Look]:
    rows: dict[KeyHash, list[StoredRow]] = {}
    for key_hash, row in evidence.table.rows(table, {s.candidate.hash: s.candidate.locations for s in subjects}):
        rows.setdefault(key_hash, []).append(row)
    changed = _changed(before, table, evidence)
    for subject in subjects:
        key = subject.source_key
        has_changed = changed is None or subject.candidate.hash in changed
        if key is None and changed is not None:
            subject.source_key = changed.get(subject.candidate.hash)
        read = None if key is None else found.read.get(key)
        yield Look(
            subject,
            read if read is not None and read.text is not None else None,
            None if key is None else found.refused.get(key),
            rows.get(subject.candidate.hash, ()),
            has_changed,
        )


def _changed(before: TopicPositions, table: TableState, evidence: Evidence) -> dict[KeyHash, str] | None:
    """The keys that have changed, by their hashes in the table; None when that cannot be told."""
    try:
        keys = list(evidence.events.keys_between(before, table.positions))
    except PositionsGone:
        return None
    hashes = hash_keys(map(evidence.rules.newest.rules.key_text, keys)).tolist()
    return {(high, low): key for (high, low), key in zip(hashes, keys, strict=True)}


def _documents(
    subjects: Sequence[Subject], evidence: Evidence, max_bytes: int
) -> tuple[DocumentsRead, Sequence[Subject]]:
    """Read documents until they take `max_bytes`; also return the subjects that were left."""
    found = DocumentsRead()
    size = 0
    for start in range(0, len(subjects), KEYS_A_READ):
        if size > max_bytes:
            return found, subjects[start:]
        answer = evidence.documents([s.source_key for s in subjects[start : start + KEYS_A_READ] if s.source_key])
        found.read.update(answer.read)
        found.refused.update(answer.refused)
        size += sum(len(each.text or "") for each in answer.read.values())
    return found, ()


def key_of(subject: Subject, rules: Rules) -> str:
    """The key as the table shows it; "" for rows without one."""
    if subject.source_key is not None:
        return rules.key_text(subject.source_key)
    return subject.key or ""
