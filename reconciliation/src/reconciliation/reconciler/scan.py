"""The two scans of a run: one pass over each side, and what a killed run has finished is not read again.

pinned version ──> a task a million rows ──> workers ──┐
                                                       ├──> spill, which `compare` joins
collection ──────> a task a chunk of _ids ─> workers ──┘
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from cdc_shared.delta.log import VersionGone
from cdc_shared.delta.stats import physical_rows
from cdc_shared.models.reconciliation import Mode
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.reconciler.generations import ScanWindow
from reconciliation.reconciler.progress import Control, Phase, PhaseClock
from reconciliation.reconciler.result import RunRequest, TopicPositions
from reconciliation.reconciler.sampling import sample_mask
from reconciliation.reconciler.spill import Manifest, ScannedPart, Side, Spill
from reconciliation.sources.chunks import Chunk, plan_chunks
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.key_selection import KeySelection
from reconciliation.sources.mongodb_reader import MongodbReader
from reconciliation.sources.sink_scan import FileSlice, SinkScanTask, plan_sink_scan, scan_sink
from reconciliation.sources.source_scan import SourceScanTask, scan_source
from reconciliation.workers.runner import Runner
from reconciliation.workers.task_progress import HeldBack

SOFTWARE: Final = "reconciliation scan 3"
"""Counts changes of what hashes and digests are made of: parts of another number are of no use."""
T = TypeVar("T")


class Scan:
    """Of one run: `prepare`, then `table` and `source`. A later process that does so goes on with what is missing.

    Attributes:
        spill: where the finished parts are.
        window: when the source was read; known once `source` has returned.
    """

    def __init__(
        self,
        request: RunRequest,
        mode: Mode,
        source: MongodbSource,
        url: str,
        spill: Spill,
        runner: Runner,
        control: Control,
    ) -> None:
        """`mode` may be another than the one asked for; `url` is the table's."""
        self.spill = spill
        self.window: ScanWindow | None = None
        self._request = request
        self._mode = mode
        self._source = source
        self._reader = MongodbReader(source, request.collection)
        self._url = url
        self._runner = runner
        self._control = control

    @property
    def before(self) -> TopicPositions:
        """Where the change topic ended before anything was read, by whatever process began the scan."""
        return TopicPositions(self._manifest.topic_id, self._manifest.ends_before)

    def prepare(
        self,
        pin: Callable[[int | None], PinnedTable],
        topic_ends: Callable[[], TopicPositions],
        chunks: Callable[[list[Chunk]], list[Chunk]] = lambda chunks: chunks,
    ) -> PinnedTable:
        """Pin a version and plan, or take up the plan of an earlier process; return the version.

        `pin` returns a version of the table; with None, the newest. `chunks` chooses those of the source's that are to
        be read. Raises `Transient` and `Fatal`.
        """
        before = topic_ends()  # first: whatever changes from here on has its event behind these offsets
        found = self.spill.manifest()
        if found is not None and (pinned := self._taken_up(found, pin, before)) is not None:
            self._manifest = found
            return pinned
        pinned = pin(None)
        self._manifest = self._planned(pinned, before, chunks)
        self.spill.begin(self._manifest)
        return pinned

    def table(self, pinned: PinnedTable, clock: PhaseClock, selection: KeySelection | None = None) -> None:
        """Scan the rows of the pinned version, or those of the selection."""
        manifest = self._manifest
        files = [pinned.snapshot.files[path] for path in manifest.files]
        plan = [msgspec.convert(each, list[FileSlice]) for each in manifest.sink_plan]
        tasks = [
            SinkScanTask(
                number,
                self._url,
                [(piece, files[piece.file]) for piece in slices],
                self._depth,
                manifest.schema,
                manifest.sample_mask,
                selection,
            )
            for number, slices in enumerate(plan)
        ]
        total = sum(physical_rows(file) or 0 for file in files)
        clock.begin(Phase.SCANNING_TABLE, total, self._read_before(Side.SINK))
        self._work(Side.SINK, tasks, scan_sink, clock)

    def source(self, clock: PhaseClock) -> None:
        """Scan the source's documents."""
        manifest = self._manifest
        chunks = [msgspec.convert(each, Chunk) for each in manifest.source_plan]
        cap = self._request.options.documents_per_s
        not_before = self._reader.operation_time()
        tasks = [
            SourceScanTask(
                self._request.run_id,
                self._request.spec,
                self._request.collection,
                chunk,
                self._depth,
                manifest.schema,
                manifest.sample_mask,
                not_before,
                None if cap is None else cap / self._runner.workers,
            )
            for chunk in chunks
        ]
        total = sum(chunk.documents or 0 for chunk in chunks)
        clock.begin(Phase.SCANNING_SOURCE, total, self._read_before(Side.SOURCE))
        self._work(Side.SOURCE, tasks, scan_source, clock)
        after_ms = self._reader.operation_time().time * 1000
        self.window = ScanWindow(self.before, after_ms)

    @property
    def _depth(self) -> Mode:
        """What scanning has to find out. Of an incremental run's share a key that both sides have read is no candidate,
        so that nobody looks at its values if the scans do not.
        """
        return Mode.KEYS if self._mode is Mode.KEYS else Mode.FULL

    def _work(self, side: Side, tasks: Sequence[T], function: Callable[[T], ScannedPart], clock: PhaseClock) -> None:
        finished = self.spill.finished(side)

        def done(_: T, part: ScannedPart) -> None:
            self.spill.write(part)
            clock.throttled(_held_back(part.facts))
            clock.advance(_read(part.facts, len(part.rows)))

        def under_way(rows: int, held_back: HeldBack) -> None:
            clock.under_way(rows)
            if rows:  # else nothing is known of it
                clock.throttled(held_back.reason)

        missing = [task for number, task in enumerate(tasks) if number not in finished]
        self._runner.run(missing, function, done, self._control, under_way)

    def _read_before(self, side: Side) -> int:
        """How many rows or documents an earlier process has read."""
        facts = self.spill.facts(side)
        return _read(facts, facts["rows"])

    def _taken_up(
        self, found: Manifest, pin: Callable[[int | None], PinnedTable], now: TopicPositions
    ) -> PinnedTable | None:
        """Return the version of an earlier process's plan; None when the plan can no longer be followed."""
        same = (
            found.software == SOFTWARE
            and found.mode is self._mode
            and found.rules_version == self._request.spec.quality.version
            and found.topic_id == now.topic_id
        )
        if not same:
            return None
        try:
            pinned = pin(found.version)
        except VersionGone:
            return None
        return pinned if pinned.table_id == found.table_id else None

    def _planned(
        self, pinned: PinnedTable, before: TopicPositions, choose: Callable[[list[Chunk]], list[Chunk]]
    ) -> Manifest:
        request = self._request
        chunks = choose(plan_chunks(self._source, request.collection))
        files = [pinned.snapshot.files[path] for path in sorted(pinned.snapshot.files)]
        rows = sum(physical_rows(file) or 0 for file in files)
        sample = sample_mask(request.options.sample_share, rows) if self._depth is Mode.FULL else None
        return Manifest(
            software=SOFTWARE,
            mode=self._mode,
            table_id=pinned.table_id,
            version=pinned.version,
            schema=pinned.metadata.schema_string,
            watermark_ms=pinned.watermark_ms or 0,
            rules_version=request.spec.quality.version,
            sample_mask=sample,
            topic_id=before.topic_id,
            # A re-read request before these ends that is still to be answered reads its document after the scan.
            ends_before={p: min(end, pinned.positions.get(p, 0)) for p, end in before.offsets.items()},
            files=[file.path for file in files],
            source_plan=_builtins([replace(chunk, number=number) for number, chunk in enumerate(chunks)]),
            sink_plan=_builtins(plan_sink_scan(files)),
        )


def _builtins(plan: Sequence[Any]) -> list[Any]:
    built: list[Any] = msgspec.to_builtins(plan)
    return built


def _read(facts: Mapping[str, int], rows: int) -> int:
    """Rows of a table that were looked at, deleted ones too: its total counts them."""
    return facts.get("read", rows)


def _held_back(facts: Mapping[str, int]) -> str | None:
    """Say what made a part slower than it could be, if anything did for longer than the source took to answer."""
    rested, capped, waited = (facts.get(name, 0) for name in ("rested_ms", "capped_ms", "source_ms"))
    if rested > max(capped, waited):
        return HeldBack.BY_SOURCE.reason
    return (HeldBack.BY_CAP if capped > waited else HeldBack.NOT).reason
