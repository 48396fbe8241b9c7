"""Repair: the writer is asked to read the documents of wrong rows again, in batches, and is waited for in between.

Nothing here touches a table or says what a row is to hold: a re-read request stands among the document's own events, so
whatever changed later comes later, and a repair never undoes it (docs/adr/0008-re-read-requests.md). A key whose event
is a dead letter has the letter replayed, which is such a request as well and ends the letter. Asking twice does no
harm, so a repair that was interrupted goes on behind its last batch, or begins it again.

The next batch is sent when the table has come past the one before: a repair of a million rows delays other changes of
the collection by one batch, not by a million reads.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as Collected
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Protocol

from cdc_shared.dead_letters.dead_letters import Replayed
from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.reread_requests import RereadsRequested
from cdc_shared.models.reconciliation import DifferenceKind
from cdc_shared.retry import retrying
from reconciliation.reconciler.progress import Control

BATCH_KEYS: Final = 5_000
LOOK_EVERY_S: Final = 0.5
STALLED_AFTER_S: Final = 180.0
"""Without any progress of the table. A batch that changes no row is committed within a minute."""
GIVE_UP_AFTER_S: Final = 60.0


class Requests(Protocol):
    """What is asked for one collection; see `repair_requests.CollectionRequests`. Each raises `Transient`, `Fatal`."""

    def ask(self, source_keys: Sequence[str]) -> RereadsRequested:
        """Send a re-read request for each key text of an `_id`."""

    def letters(self, keys: Collected[str]) -> Mapping[str, Sequence[Letter]]:
        """The dead letters that stand, by key as the table has it; of those keys that have some."""

    def replay(self, places: frozenset[Place]) -> Replayed:
        """Try these dead letters again."""

    def applied(self) -> Mapping[int, int]:
        """Partition of the change topic → the next offset to come into the table."""


@dataclass(frozen=True, slots=True)
class RepairKey:
    """A difference to be repaired.

    Attributes:
        number: of the difference in its run; keys come in this order.
        key: `_cdc_key`.
        source_key: key text of the document's own `_id`.
    """

    number: int
    kind: DifferenceKind
    key: str
    source_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RepairProgress:
    """How far the repair of a run's differences has come.

    Attributes:
        number: of the last difference whose batch the table has come past; a repair taken up again begins behind it.
        asked: keys that Kafka has a request for, or whose dead letter was replayed.
        replayed: dead letters that were replayed.
        refused: how many dead letters could not be, by reason; their documents are read again all the same.
        applied: keys whose request the table has come past, and those with dead letters, which are not waited for.
    """

    number: int = -1
    asked: int = 0
    replayed: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    applied: int = 0


class RepairEngine:
    """Repairs rows of one collection. Not thread-safe. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        requests: Requests,
        control: Control,
        *,
        batch_keys: int = BATCH_KEYS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = requests
        self._control = control
        self._batch_keys = batch_keys
        self._clock = clock
        self._sleep = sleep

    def apply(
        self,
        keys: Iterable[RepairKey],
        max_keys: int,
        report: Callable[[RepairProgress], None],
        done: RepairProgress | None = None,
    ) -> RepairProgress:
        """Ask for every key, and return when the table has come past all requests.

        Args:
            keys: those behind `done.number`, in order.
            max_keys: with what was done before; no more are asked for.
            report: told after each step, to be kept: what it was told last is a later call's `done`.

        Raises:
            Fatal: there are more than `max_keys`; those up to it were asked for.
            Transient: Kafka or the store is away, or the writer does not come to the requests. What was asked for
                stays asked for; call again.
            Cancelled, Stopped: by the control, between batches.
        """
        progress = done or RepairProgress()
        pending = iter(keys)
        while batch := list(islice(pending, self._batch_keys)):
            self._control.check()
            allowed = batch[: max(0, max_keys - progress.applied)]
            if allowed:
                progress = self._repair(allowed, progress, report)
            if len(allowed) < len(batch):
                raise Fatal(
                    f"the repair may ask for {max_keys:,} keys and there are more: see what was found, and propose "
                    "another repair with a higher max_keys"
                )
        return progress

    def _repair(
        self, batch: Sequence[RepairKey], before: RepairProgress, report: Callable[[RepairProgress], None]
    ) -> RepairProgress:
        replayed, lettered = self._replay([each for each in batch if each.kind is DifferenceKind.DEAD_LETTERED])
        ends = self._ask([each.source_key for each in batch if each.key not in lettered])
        refused = dict(before.refused)
        for reason, count in replayed.refused.items():
            refused[reason] = refused.get(reason, 0) + count
        asked = replace(
            before,
            asked=before.applied + len(batch),
            replayed=before.replayed + replayed.replayed,
            refused=refused,
        )
        report(asked)
        self._await_applied(ends)
        applied = replace(asked, number=batch[-1].number, applied=asked.asked)
        report(applied)
        return applied

    def _replay(self, keys: Sequence[RepairKey]) -> tuple[Replayed, Collected[str]]:
        """Replay the dead letters of the keys; also return the keys that need no request of their own."""
        if not keys:
            return Replayed(), ()
        letters = self._requests.letters([each.key for each in keys])
        places = frozenset(letter.place for of_key in letters.values() for letter in of_key)
        if not places:  # discarded since, or replayed by a repair that was interrupted
            return Replayed(), ()
        replayed = self._requests.replay(places)
        return replayed, () if replayed.refused else letters.keys()

    def _ask(self, source_keys: Sequence[str]) -> Mapping[int, int]:
        """Ask until Kafka has acknowledged every request; return the offset behind the last one of each partition."""
        left = source_keys
        ends: dict[int, int] = {}

        def ask() -> None:
            nonlocal left
            result = self._requests.ask(left)
            for partition, end in result.ends.items():
                ends[partition] = max(ends.get(partition, 0), end)
            if result.failed:
                left = list(result.failed)
                why = next(iter(result.failed.values()))
                raise Transient(f"Kafka did not take {len(left):,} re-read requests: {why}")

        if left:
            retrying(
                ask,
                lambda _: self._control.check(),
                threading.Event(),
                give_up_after_s=GIVE_UP_AFTER_S,
                sleep=self._sleep,
                clock=self._clock,
            )
        return ends

    def _await_applied(self, ends: Mapping[int, int]) -> None:
        """Wait until the table has come past these offsets."""
        if not ends:
            return
        reached, moved_at = self._requests.applied(), self._clock()
        while behind := sum(max(0, end - reached.get(partition, 0)) for partition, end in ends.items()):
            if self._clock() - moved_at > STALLED_AFTER_S:
                raise Transient(
                    f"the writer has not come nearer to the re-read requests for {STALLED_AFTER_S:.0f} s, up to "
                    f"{behind:,} records are before them; they stay where they are and are answered when it goes on: "
                    "see the pipeline's status"
                )
            self._sleep(LOOK_EVERY_S)
            self._control.check()
            now = self._requests.applied()
            if now != reached:
                reached, moved_at = now, self._clock()
