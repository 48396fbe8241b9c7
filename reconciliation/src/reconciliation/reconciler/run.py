"""One run: one collection of one pipeline, from the request to the verdict.

    full, keys     pin a version ─> scan the table ─> scan the source ─> compare by hashes ─> candidates ─┐
    incremental    what changed (Kafka) ─> candidates; a share of the rest: the same scans ─> candidates ─┤
    a repair's     its keys ────────────────────────────────────────────────────────────────> candidates ─┤
                                                                                                          v
                                         verdict <── differences, explained <── settle, generation by generation
    counts         two numbers ─> verdict

A candidate is not yet wrong, and what is no candidate is proved equal (docs/adr/0026-reconciliation.md).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final

from cdc_shared.errors import Fatal
from cdc_shared.models.reconciliation import DifferenceKind, Mode, Outcome
from reconciliation.reconciler.counting import count_both
from reconciliation.reconciler.data_comparator import Candidate, Comparison, compare
from reconciliation.reconciler.discrepancy_detector import (
    Generation,
    Settled,
    SettleLimits,
    candidates_of_keys,
    settle,
)
from reconciliation.reconciler.generations import ScanWindow
from reconciliation.reconciler.incremental_keys import FullInstead, HashRange, rotating_share, select_keys
from reconciliation.reconciler.progress import Control, OnProgress, Phase, PhaseClock
from reconciliation.reconciler.result import PhaseTime, RunRequest, RunResult, RunSummary, Verified
from reconciliation.reconciler.scan import Scan
from reconciliation.reconciler.sides import Platform, Sides, open_sides
from reconciliation.reconciler.spill import Spill
from reconciliation.sources.chunks import Chunk
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.key_selection import KeySelection
from reconciliation.sources.mongodb_reader import MongodbReader

MAX_RULES: Final = 3
"""So often a collection is compared at most, when its rules have changed by the time that differences are found."""


def run_collection(request: RunRequest, platform: Platform, on_progress: OnProgress, control: Control) -> RunResult:
    """Compare one collection and say what is wrong with it.

    What it has scanned stays in `platform.directory` under the run's id, so that a run that ended in between goes on
    when it is called again; `forget_run` deletes it.

    Raises:
        Cancelled, Stopped: by `control`.
        Transient: source, store or Kafka stay away; calling again goes on.
        Fatal: what no waiting cures, with the remedy.
    """
    for _ in range(MAX_RULES):
        run = _Run(request, platform, PhaseClock(on_progress), control)
        with open_sides(request, platform) as sides:
            result = run.on(sides)
            if result.outcome is not Outcome.DIFFERENCES:
                return result
            spec = sides.spec_in_force()
        if spec.quality == request.spec.quality:
            return result
        # What looked wrong may be what the newer rules ask for: a filter that came meanwhile has deleted its row.
        request = replace(request, spec=spec)
    raise Fatal(
        f"the rules of {request.spec.name} changed each of the {MAX_RULES} times that {request.collection.name} was "
        "compared: compare it again when they stay as they are"
    )


def forget_run(platform: Platform, run_id: str) -> None:
    """Delete what a run has left on the disk. Call it when its result is stored."""
    _spill(platform, run_id).remove()


class _Run:
    """One call of `run_collection`."""

    def __init__(self, request: RunRequest, platform: Platform, clock: PhaseClock, control: Control) -> None:
        self._request = request
        self._options = request.options
        self._platform = platform
        self._clock = clock
        self._control = control
        self._began = datetime.now(UTC)
        self._notes: list[str] = []

    def on(self, sides: Sides) -> RunResult:
        self._clock.begin(Phase.PREPARING)
        request = self._request
        if request.keys is not None:
            return self._given_keys(sides, request.keys)
        match request.mode:
            case Mode.COUNTS:
                return self._counts(sides)
            case Mode.INCREMENTAL:
                return self._incremental(sides)
            case Mode.FULL | Mode.KEYS:
                return self._full(sides, request.mode)

    # -- the ways to candidates ----------------------------------------------------------------------------------------

    def _full(self, sides: Sides, mode: Mode) -> RunResult:
        """Everything, by two scans."""
        scan = self._scan(sides, mode)
        pinned = scan.prepare(sides.pin, sides.events.ends)
        scan.table(pinned, self._clock)
        scan.source(self._clock)
        compared = self._compare(scan.spill)
        settled = self._settle(sides, compared.candidates(), pinned, scan.window, sum(compared.counts.values()))
        return self._result(mode, pinned, settled, compared, Verified(scan.before, pinned.table_id))

    def _incremental(self, sides: Sides) -> RunResult:
        """What changed since the last verification, and the rows and documents of the share whose turn it is."""
        share, _ = rotating_share(
            self._options.rotating_share, self._request.verified.rotation if self._request.verified else 0
        )
        scan = self._scan(sides, Mode.INCREMENTAL)
        pinned = scan.prepare(
            sides.pin, sides.events.ends, lambda chunks: [] if share is None else _part(chunks, share)
        )
        # After the version was pinned: what it is right through must have been looked at.
        selected = select_keys(sides.events, self._request.verified, pinned.table_id, self._options.rotating_share)
        if isinstance(selected, FullInstead):
            self._notes.append(f"Everything was compared instead of what changed: {selected.reason}.")
            return self._full(sides, Mode.FULL)
        rules = sides.rules.newest.rules
        candidates: Iterable[Candidate] = candidates_of_keys(selected.changed, rules)
        total = looked_at = len(selected.changed)
        compared = None
        if share is not None:
            scan.source(self._clock)
            if rules.changes_keys:  # a row's key does not lead to its document: those of the documents are looked into
                keys = scan.spill.source_keys()
                candidates, total = chain(candidates, candidates_of_keys(keys, rules)), total + len(keys)
                looked_at = total
            else:
                scan.table(pinned, self._clock, KeySelection(scan.spill.source_hashes(), share.low, share.high - 1))
                compared = self._compare(scan.spill)
                candidates, total = chain(candidates, compared.candidates()), total + sum(compared.counts.values())
                looked_at += compared.documents + compared.rows - compared.compared
        settled = self._settle(sides, candidates, pinned, None, total)
        self._notes.append(
            f"Compared: {len(selected.changed):,} documents that changed since the last verification, and a share of "
            f"{self._options.rotating_share:.1%} of the others."
        )
        verified = Verified(selected.positions, pinned.table_id, selected.rotation)
        return self._result(Mode.INCREMENTAL, pinned, settled, compared, verified, compared_keys=looked_at)

    def _given_keys(self, sides: Sides, keys: Sequence[str]) -> RunResult:
        """The keys of a repair, to see whether it did them good."""
        candidates = candidates_of_keys(keys, sides.rules.newest.rules)
        settled = self._settle(sides, candidates, None, None, len(keys))
        self._notes.append("Only the keys of a repair were compared.")
        return self._result(self._request.mode, None, settled, None, None, compared_keys=len(keys))

    def _counts(self, sides: Sides) -> RunResult:
        """Two numbers."""
        self._clock.begin(Phase.COMPARING)
        reader = MongodbReader(sides.source, self._request.collection)
        counted = count_both(sides, reader, self._options.settle_timeout_s, self._control)
        rules = sides.rules.newest.rules
        outcome, differences, note = counted.verdict(rows_may_be_left_out=rules.validates)
        self._notes.append(note)
        summary = self._summary(
            Mode.COUNTS, counted.table, documents=counted.documents, rows=counted.rows, differences=differences
        )
        return RunResult(outcome, summary)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _scan(self, sides: Sides, mode: Mode) -> Scan:
        return Scan(
            self._request,
            mode,
            sides.source,
            sides.location.url,
            _spill(self._platform, self._request.run_id),
            self._platform.runner,
            self._control,
        )

    def _compare(self, spill: Spill) -> Comparison:
        self._clock.begin(Phase.COMPARING)

        def progress(_done: int, _total: int) -> None:
            self._control.check()

        return compare(spill, progress=progress)

    def _settle(
        self,
        sides: Sides,
        candidates: Iterable[Candidate],
        pinned: PinnedTable | None,
        window: ScanWindow | None,
        total: int,
    ) -> Settled:
        """`window`: of a scan of everything, which then knows the places of all rows."""
        self._clock.begin(Phase.SETTLING, total)
        return settle(
            candidates,
            sides.evidence(pinned, has_places=window is not None),
            SettleLimits(self._options.settle_timeout_s, self._options.max_differences),
            self._control,
            scan=window,
            values=self._request.mode is not Mode.KEYS,
            advance=self._clock.advance,
            waiting=self._clock.throttled,
        )

    # -- the answer ----------------------------------------------------------------------------------------------------

    def _result(
        self,
        mode: Mode,
        pinned: PinnedTable | None,
        settled: Settled,
        compared: Comparison | None,
        verified: Verified | None,
        compared_keys: int = 0,
    ) -> RunResult:
        differences = dict(settled.counts)
        filtered = compared.counts.get(DifferenceKind.FILTERED, 0) if compared is not None else 0
        if filtered:  # without a row, as they should be
            differences[DifferenceKind.FILTERED] = differences.get(DifferenceKind.FILTERED, 0) + filtered
        summary = self._summary(
            mode,
            pinned,
            documents=compared.documents if compared else 0,
            rows=compared.rows if compared else 0,
            compared=compared_keys or (compared.compared if compared else 0),
            sampled=compared.sampled if compared else 0,
            rescued_rows=compared.rescued_rows if compared else 0,
            differences=differences,
            settled=settled.equal,
            uninspected=settled.uninspected,
            generations=settled.generations,
        )
        outcome = _outcome(summary)
        watermark = summary.watermark
        whole = outcome is Outcome.EQUAL and verified is not None and mode is not Mode.KEYS
        if whole and watermark is None:
            outcome, whole = Outcome.UNDECIDED, False
            self._notes.append("The table has no watermark yet, so it cannot be said up to when it is right.")
        return RunResult(
            outcome,
            replace(summary, notes=tuple(self._notes)),
            settled.differences,
            compared.digest_map if compared else (),
            watermark if whole else None,
            verified if whole else None,
        )

    def _summary(self, mode: Mode, pinned: PinnedTable | None, **numbers: Any) -> RunSummary:
        self._clock.end()
        generations: Sequence[Generation] = numbers.pop("generations", ())
        return RunSummary(
            mode=mode,
            version=pinned.version if pinned else None,
            watermark=_moment(pinned.watermark_ms) if pinned and pinned.watermark_ms is not None else None,
            timeline=self._timeline(generations),
            generations=len(generations),
            notes=tuple(self._notes),
            **numbers,
        )

    def _timeline(self, generations: Sequence[Generation]) -> tuple[PhaseTime, ...]:
        bars = [
            PhaseTime(phase.value, self._began + timedelta(seconds=after), took)
            for phase, after, took in self._clock.past
        ]
        settling = next((bar.began for bar in bars if bar.name == Phase.SETTLING), self._began)
        for each in generations:
            told = f"{each.keys:,} keys: {each.equal:,} equal, {each.confirmed:,} differ, {each.pending:,} to come"
            bars.append(PhaseTime(f"generation {each.number}", settling, each.seconds, told))
            settling += timedelta(seconds=each.seconds)
        return tuple(bars)


def _outcome(summary: RunSummary) -> Outcome:
    if summary.wrong:
        return Outcome.DIFFERENCES
    if summary.uninspected or summary.differences.get(DifferenceKind.LAGGING):
        return Outcome.UNDECIDED
    return Outcome.EQUAL


def _part(chunks: list[Chunk], share: HashRange) -> list[Chunk]:
    """The chunks whose turn it is: over all shares, each once."""
    return [chunk for chunk in chunks if chunk.number * 2**64 // len(chunks) in share]


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _spill(platform: Platform, run_id: str) -> Spill:
    return Spill(platform.directory / run_id)
