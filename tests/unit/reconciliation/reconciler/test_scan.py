"""What a scan has found out about the keys that it has read on both sides."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bson import Timestamp
from fake_collection import FakeCollection
from maintained_table import TableWriter

from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.models.reconciliation import JobOptions, Mode
from cdc_shared.settings import ObjectStoreSettings, SecretsSettings
from cdc_shared.storage.object_store import open_store
from reconciliation.reconciler.data_comparator import compare
from reconciliation.reconciler.progress import Phase, PhaseClock, RunProgress
from reconciliation.reconciler.result import RunRequest, TopicPositions
from reconciliation.reconciler.scan import Scan
from reconciliation.reconciler.spill import Spill
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.key_selection import KeySelection
from reconciliation.sources.sink_scan import SinkScanTask, scan_slices
from reconciliation.sources.source_scan import prepared, scan_chunk
from reconciliation.workers.threads import ThreadRunner

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings(_env_file=None)  # type: ignore[call-arg]
NO_SECRETS = SecretsSettings(file=None, key_file=None, key=None)
DAMAGED = 7


@pytest.mark.parametrize(
    ("mode", "found"), [(Mode.FULL, {str(DAMAGED)}), (Mode.INCREMENTAL, {str(DAMAGED)}), (Mode.KEYS, set())]
)
def test_values_are_compared_of_what_both_scans_have_read(tmp_path: Path, mode: Mode, found: set[str]) -> None:
    """Also of an incremental run's share: nobody else looks at a row whose document was read with it."""
    documents: list[dict[str, Any]] = [{"_id": n, "n": n, "name": f"n{n}"} for n in range(40)]
    writer = TableWriter(str(tmp_path / "table"), STORES, tmp_path / "cache")
    writer.apply([(each["_id"], {**each, "n": -1} if each["_id"] == DAMAGED else each) for each in documents])
    writer.apply([(100, {"_id": 100})])
    writer.apply([(100, None)])  # its row stays in its file, marked as deleted
    store = open_store(writer.url, STORES)
    source: Any = FakeCollection(documents)

    def work(each: Any) -> Any:
        if isinstance(each, SinkScanTask):
            return scan_slices(each, store)
        return scan_chunk(each, source, prepared(each, NO_SECRETS))

    def run(tasks: Any, _function: Any, on_done: Any, control: Any, on_under_way: Any) -> None:
        ThreadRunner().run(tasks, work, on_done, control, on_under_way)

    spec = PipelineSpec(name="p", source=SourceSpec(connection="env:URI", database="shop"))
    request = RunRequest("r", spec, Collection("shop", "orders"), mode, JobOptions())
    runner: Any = SimpleNamespace(workers=1, run=run)
    control: Any = SimpleNamespace(check=lambda: None)
    scan = Scan(request, mode, source, writer.url, Spill(tmp_path / "r"), runner, control)
    scan._reader.operation_time = lambda: Timestamp(1_900_000_000, 7)  # type: ignore[method-assign]
    table = PinnedTable.newest(store, writer.topic)
    shown: list[RunProgress] = []
    now = itertools.count(0, 10)  # so that everything is shown
    clock = PhaseClock(shown.append, lambda: float(next(now)))
    pinned = scan.prepare(lambda _: table, lambda: TopicPositions(writer.topic.topic_id, {0: 42}))
    selection = None
    scan.source(clock)
    if mode is Mode.INCREMENTAL:
        selection = KeySelection(scan.spill.source_hashes(), 0, 2**64 // 20 - 1)
    scan.table(pinned, clock, selection)
    assert {each.source_key for each in compare(scan.spill).candidates()} == found
    clock.end()
    for phase in (Phase.SCANNING_SOURCE, Phase.SCANNING_TABLE):
        of_phase = [each for each in shown if each.phase is phase]
        done = [each.done for each in of_phase]
        assert done == sorted(done)
        assert of_phase[-1].percent == 100.0, "rows that are deleted are looked at too"
        assert of_phase[-1].done == of_phase[-1].total
