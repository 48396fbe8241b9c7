"""Candidates → what is really wrong with them: nothing is called wrong that a change under way would put right.

A candidate is a key whose row and document did not agree when they were scanned, at different times. Here both are read
again, a generation of keys at a time, in an order that makes the comparison a proof (`generations`). What is equal then
was lag; what differs while no change of the key is under way is wrong, and is explained (`explanations`); what was
changed meanwhile is looked at again.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.errors import Transient
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import WRONG, DifferenceKind
from cdc_shared.rules.compiled import Rules
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.difference import Difference, FieldDifference, How
from reconciliation.reconciler.explanations import Explained, Explainer, by_dead_letters
from reconciliation.reconciler.generations import (
    Evidence,
    Look,
    Looks,
    ScanWindow,
    Subject,
    TableState,
    look,
    look_where_scanned,
)
from reconciliation.reconciler.progress import Control
from reconciliation.reconciler.result import TopicPositions
from reconciliation.reconciler.rules_versions import Incomparable
from reconciliation.sources.deltalake_reader import KeyHash, StoredRow

__all__ = ["Difference", "FieldDifference", "How", "SettleLimits", "Settled", "candidates_of_keys", "settle"]

POLL_S: Final = 0.25
MAX_LOOKS: Final = 30
"""A key that changed in each of so many generations is changed all the time."""
FAILURES_IN_A_ROW: Final = 5
FIRST_PAUSE_S: Final = 1.0
"""After a failure; doubled with each."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SettleLimits:
    """How long and how much.

    Attributes:
        timeout_s: so long a key may stay undecided since it was first looked at, before it is `lagging`.
        max_differences: so many are told one by one. When so many are wrong, the rest is not looked into.
        keys_at_once, bytes_at_once: of documents held in memory in one generation.
    """

    timeout_s: float = 300.0
    max_differences: int = 100_000
    keys_at_once: int = 50_000
    bytes_at_once: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation decided of its keys; `version` of the table is None when the writer did not come as far."""

    number: int
    keys: int
    equal: int
    confirmed: int
    pending: int
    version: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the candidates.

    Attributes:
        differences: what is not equal, up to `max_differences`.
        counts: how many there are by kind, all of them.
        equal: candidates that are equal by now: they differed only because the scans read at different times.
        uninspected: candidates that were not looked into, because enough were found to be wrong.
        generations: how it went, in order.
    """

    differences: Sequence[Difference]
    counts: Mapping[DifferenceKind, int]
    equal: int
    uninspected: int = 0
    generations: Sequence[Generation] = field(default=())


def settle(
    candidates: Iterable[Candidate],
    evidence: Evidence,
    limits: SettleLimits,
    control: Control,
    *,
    scan: ScanWindow | None = None,
    values: bool = True,
    advance: Callable[[int], None] = lambda _: None,
    waiting: Callable[[str | None], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Settled:
    """Settle every candidate.

    Args:
        scan: of the source, for rows whose `_id` is masked: what it did not see is known to be gone.
        values: without, only whether there is a row for each document and a document for each row (mode keys).
        advance: told how many keys more are decided.
        waiting: told what is waited for, None when it is over.

    Raises:
        Transient, Fatal: source, Kafka or store; settling the same candidates again is safe.
        Cancelled, Stopped: by `control`.
    """
    settling = _Settling(evidence, limits, control, scan, Explainer(evidence.rules, values=values), clock, sleep)
    settling.advance, settling.waiting = advance, waiting
    return settling.run(iter(candidates))


def candidates_of_keys(keys: Iterable[str], rules: Rules) -> Iterator[Candidate]:
    """Candidates for documents that are to be looked into without a scan: by key texts of their `_id`s."""
    names = list(dict.fromkeys(keys))
    for (high, low), key in zip(hash_keys(map(rules.key_text, names)).tolist(), names, strict=True):
        yield Candidate(DifferenceKind.DIFFERENT, (high, low), key, None, (), 0)


class _Settling:
    """One call of `settle`."""

    advance: Callable[[int], None]
    waiting: Callable[[str | None], None]

    def __init__(
        self,
        evidence: Evidence,
        limits: SettleLimits,
        control: Control,
        scan: ScanWindow | None,
        explainer: Explainer,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._evidence = evidence
        self._limits = limits
        self._control = control
        self._scan = scan
        self._explainer = explainer
        self._clock = clock
        self._sleep = sleep
        self._pending: deque[Subject] = deque()
        self._found: list[Explained] = []
        self._counts: Counter[DifferenceKind] = Counter()
        self._wrong = self._equal = self._failures = 0
        self._generations: list[Generation] = []

    def run(self, candidates: Iterator[Candidate]) -> Settled:
        uninspected = 0
        while batch := self._next(candidates):
            if self._wrong >= self._limits.max_differences:
                uninspected = len(batch) + len(self._pending) + sum(1 for _ in candidates)
                break
            if not self._generation(batch):
                uninspected = self._give_up(candidates)
                break
        self.waiting(None)
        differences = self._with_letters()
        return Settled(differences, dict(self._counts), self._equal, uninspected, tuple(self._generations))

    # -- a generation --------------------------------------------------------------------------------------------------

    def _next(self, candidates: Iterator[Candidate]) -> list[Subject]:
        """The keys of the next generation: those that are pending first."""
        batch = [self._pending.popleft() for _ in range(min(len(self._pending), self._limits.keys_at_once))]
        fresh = islice(candidates, self._limits.keys_at_once - len(batch))
        return batch + [Subject(each, each.source_key) for each in fresh]

    def _generation(self, batch: list[Subject]) -> bool:
        """Look at a batch; False when the writer did not come as far in the time that there is."""
        began = self._clock()
        equal, found, pending = self._equal, len(self._found), len(self._pending)
        try:
            looks = self._looks(batch)
            self._failures = 0
        except Transient as error:  # nothing was decided
            self._pending.extendleft(reversed(batch))
            self._pause(error)
            return True
        if any(each.table is None for each in looks):
            self._pending.extendleft(reversed(batch))
            self._note(len(batch), 0, 0, len(batch), None, began)
            return False
        for each in looks:
            if each.table is not None:
                for one in each.looks:
                    self._decide(one, each.table, began)
            self._pending.extend(each.unread)
        left = len(self._pending) - pending
        version = max((each.table.version for each in looks if each.table is not None), default=None)
        self._note(len(batch), self._equal - equal, len(self._found) - found, left, version, began)
        self.advance(len(batch) - left)
        return True

    def _looks(self, batch: list[Subject]) -> list[Looks]:
        self._control.check()
        has_scan = self._scan is not None
        looks = self._named([s for s in batch if s.source_key is None and (s.key is None or not has_scan)])
        asked = [each for each in batch if each.source_key is not None]
        masked = [each for each in batch if each.source_key is None and each.key]
        if asked:
            looks.append(look(asked, self._evidence, self._reached, self._limits.bytes_at_once))
        if masked and self._scan is not None and all(each.table is not None for each in looks):
            looks.append(look_where_scanned(masked, self._scan, self._evidence, self._reached))
        return looks

    def _named(self, subjects: list[Subject]) -> list[Looks]:
        """Find the keys of rows that no document was seen for. Those for whom that decides it are looked at already."""
        if not subjects:
            return []
        rules = self._evidence.rules.newest.rules
        nameless = {each.candidate.hash: each for each in subjects}
        rows: dict[KeyHash, list[StoredRow]] = {each: [] for each in nameless}
        table = self._evidence.table.newest(self._evidence.events.ends())
        for key_hash, row in self._evidence.table.rows(
            table, {each: subject.candidate.locations for each, subject in nameless.items()}
        ):
            rows[key_hash].append(row)
        decided = []
        for key_hash, subject in nameless.items():
            found = rows[key_hash]
            if not found or subject.candidate.keyless:  # gone; or no document and no change can ever be theirs
                decided.append(Look(subject, None, None, found, False))
                continue
            subject.key = found[0].key
            if not rules.changes_keys:
                subject.source_key = subject.key
            elif self._scan is None:
                decided.append(Look(subject, None, _NOT_SCANNED, found, False))
        return [Looks(table, decided)]

    def _reached(self, topic: TopicPositions, source_ms: int) -> TableState | None:
        """Wait for the first version of the table in which everything of the source up to that time is."""
        deadline = self._clock() + self._limits.timeout_s
        try:
            while True:
                table = self._evidence.table.newest(topic)
                watermark_ms = table.watermark_ms
                if watermark_ms is not None and watermark_ms > source_ms and self._evidence.table.is_whole(table):
                    return table
                if self._clock() >= deadline:
                    return None
                self.waiting("the writer has not come as far as the source was read")
                self._control.check()
                self._sleep(POLL_S)
        finally:
            self.waiting(None)

    def _pause(self, error: Transient) -> None:
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise error
        log.warning("differences are looked at again after an error", reason=str(error), failures=self._failures)
        self.waiting(str(error))
        until = self._clock() + FIRST_PAUSE_S * 2 ** (self._failures - 1)
        while self._clock() < until:
            self._control.check()
            self._sleep(POLL_S)

    # -- what came of it -----------------------------------------------------------------------------------------------

    def _decide(self, seen: Look, table: TableState, began: float) -> None:
        subject = seen.subject
        subject.looks += 1
        subject.looked_at = began if subject.looked_at is None else subject.looked_at
        if seen.refused is not None:
            self._add(Explained(self._explainer.undecided(seen, f"It cannot be compared: {seen.refused}."), None))
            return
        try:
            if self._explainer.agrees(seen, table):
                self._equal += 1
            elif not seen.changed:
                self._add(self._explainer.explain(seen, table))
            elif self._is_hopeless(subject):
                self._add(Explained(self._explainer.undecided(seen, _changing(subject.looks)), None))
            else:
                self._pending.append(subject)
        except Incomparable as error:
            self._add(Explained(self._explainer.undecided(seen, f"It cannot be compared: {error}."), None))

    def _is_hopeless(self, subject: Subject) -> bool:
        began = subject.looked_at or 0.0
        return subject.looks >= MAX_LOOKS or self._clock() - began >= self._limits.timeout_s

    def _give_up(self, candidates: Iterator[Candidate]) -> int:
        """The writer does not come as far: what is left lags, all of it. Returns how many of those are only counted."""
        why = (
            f"The writer did not come as far as the source was read within {self._limits.timeout_s:,.0f} s: see "
            "whether the pipeline runs, and how far it lags."
        )
        for subject in self._pending:
            self._add(Explained(self._explainer.undecided(_unseen(subject), why), None))
        return sum(1 for _ in candidates)

    def _add(self, explained: Explained) -> None:
        kind = explained.difference.kind
        self._counts[kind] += 1
        self._wrong += kind in WRONG
        if len(self._found) < self._limits.max_differences:
            self._found.append(explained)

    def _note(self, keys: int, equal: int, confirmed: int, pending: int, version: int | None, began: float) -> None:
        number, seconds = len(self._generations) + 1, self._clock() - began
        self._generations.append(Generation(number, keys, equal, confirmed, pending, version, seconds))

    def _with_letters(self) -> list[Difference]:
        """The differences, explained by dead letters where there are some."""
        keys = {each.difference.key for each in self._found if each.difference.kind is not DifferenceKind.LAGGING}
        letters = self._evidence.letters(keys) if keys else {}
        told = by_dead_letters(self._found, letters)
        for before, after in zip(self._found, told, strict=True):
            if before.difference.kind is not after.kind:
                self._counts[before.difference.kind] -= 1
                self._counts[after.kind] += 1
        self._counts = +self._counts
        return told


_NOT_SCANNED: Final = (
    "its row has a masked _id, which cannot be looked up in MongoDB; a full comparison, which reads every document, "
    "can tell whether there is one"
)


def _unseen(subject: Subject) -> Look:
    return Look(subject, None, None, (), False)


def _changing(looks: int) -> str:
    return (
        f"The document changed each of the {looks} times that it was looked at, faster than the writer brings changes "
        "in: compare it again when it changes less."
    )
