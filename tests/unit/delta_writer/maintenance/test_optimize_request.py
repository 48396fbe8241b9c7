"""OPTIMIZE on request: what somebody asks for in the table's properties is done, told there, and done once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from maintained_table import LABELS, MaintainedTable
from waiting import wait_until

from cdc_shared.errors import Fatal
from cdc_shared.metrics.prometheus_metrics import MaintenanceTask
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import table_url
from delta_writer.maintenance.optimize_command import ask_to_optimize, follow
from delta_writer.maintenance.optimize_request import REQUEST, OptimizeRequest, last_report, request_property
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.retention import Retention
from delta_writer.maintenance.table_maintenance import LOOK_AT_OTHERS_S

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings(endpoint=None, access_key_id=None, secret_access_key=None)
POLICY = MaintenancePolicy(
    Retention(0.0, 0.0, 0.0), 128 * 1024**2, cpu_share=1.0, bytes_per_s=1e9, first_vacuum_s=1e9, vacuum_every_s=1e9
)
WAIT_S = 30.0


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MaintainedTable]:
    """Five files, too few for the writer to put them together by itself, the first of them with a deleted row."""
    url = table_url(str(tmp_path / "lake"), *LABELS)
    with MaintainedTable(url, STORES, tmp_path / "cache", POLICY) as table:
        for key in range(5):
            table.apply([(key, {"n": key}), (key + 100, {"n": key})])
        table.apply([(0, None)])
        table.settle(WAIT_S)
        assert len(table.writer.snapshot.files) == 5
        yield table


@pytest.fixture
def spec(tmp_path: Path) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": LABELS[0],
            "source": {"connection": "env:X", "database": LABELS[1]},
            "sink": {"root": str(tmp_path / "lake")},
        }
    )


def ask(spec: PipelineSpec, **options: Any) -> tuple[list[Any], list[str]]:
    said: list[str] = []
    options = {"with_vacuum": True, "dry_run": False} | options
    return ask_to_optimize(STORES, spec, options.pop("collection", None), said.append, **options), said


def turn_until_done(table: MaintainedTable, request: str) -> None:
    def done() -> bool:
        table.writer.refresh()
        table.maintenance.turn()
        metadata = table.writer.snapshot.metadata
        report = None if metadata is None else last_report(metadata)
        return report is not None and report.id == request

    wait_until(done, WAIT_S, "the request is done")


def test_small_files_become_one_and_the_old_ones_are_deleted(table: MaintainedTable, spec: PipelineSpec) -> None:
    before = dict(table.model)
    [asked], _ = ask(spec)
    turn_until_done(table, asked.request)

    [file] = table.writer.snapshot.files.values()
    assert file.deletion_vector is None
    assert table.model == before
    said: list[str] = []
    [report] = follow([asked], said.append)
    assert (report.files_read, report.files_written) == (5, 1)
    assert report.bytes_written == file.size < report.bytes_read
    assert report.deleted_files + len(list(Path(table.url).glob("*.parquet"))) > 5
    assert "5 files became 1" in said[0]

    runs = table.metrics.maintenance_runs.labels(*LABELS, MaintenanceTask.COMPACTION, "done")._value.get()
    table.apply([(7, {"n": 7})])
    table.settle(WAIT_S)
    assert len(table.writer.snapshot.files) == 2, "a request that is done is not done again"
    assert table.metrics.maintenance_runs.labels(*LABELS, MaintenanceTask.COMPACTION, "done")._value.get() == runs


def test_a_request_waits_for_a_writer_and_a_later_one_takes_its_place(
    table: MaintainedTable, spec: PipelineSpec, tmp_path: Path
) -> None:
    [first], _ = ask(spec)
    [second], _ = ask(spec, with_vacuum=False)
    said: list[str] = []
    assert follow([first], said.append) == []
    assert "somebody else has asked since" in said[0]
    files = len(list(Path(table.url).glob("*.parquet")))
    turn_until_done(table, second.request)
    assert len(list(Path(table.url).glob("*.parquet"))) == files + 1, "nothing was vacuumed"
    assert [each.deleted_files for each in follow([second], said.append)] == [0]


def test_a_quiet_table_is_looked_at_every_minute(table: MaintainedTable, spec: PipelineSpec) -> None:
    """Nothing is committed that would run into the request."""
    now = 1e6
    table.maintenance._clock = lambda: now
    table.maintenance.turn()
    [asked], _ = ask(spec, with_vacuum=False)
    table.maintenance.turn()
    assert table.maintenance._request is None
    now += LOOK_AT_OTHERS_S
    table.maintenance.turn()
    assert table.maintenance._request is not None
    turn_until_done(table, asked.request)


def test_what_is_written_meanwhile_does_not_keep_it_from_ending(table: MaintainedTable, spec: PipelineSpec) -> None:
    [asked], _ = ask(spec, with_vacuum=False)
    table.writer.refresh()
    for key in range(200, 300):
        table.apply([(key, {"n": key})])
        metadata = table.writer.snapshot.metadata
        assert metadata is not None
        report = last_report(metadata)
        if report is not None and report.id == asked.request:
            break
    else:
        turn_until_done(table, asked.request)


def test_a_dry_run_tells_the_gain_and_asks_for_nothing(table: MaintainedTable, spec: PipelineSpec) -> None:
    version = table.writer.version
    asked, said = ask(spec, dry_run=True)
    table.writer.refresh()
    assert (asked, table.writer.version) == ([], version)
    assert "5 data files" in said[0]
    assert "1 deleted rows in them; 5 files" in said[0]
    assert "are needed by no version of the last 30 days" in said[1]
    assert said[-1] == "nothing was asked for (--dry-run)"


def test_a_collection_without_a_table_is_told(table: MaintainedTable, spec: PipelineSpec) -> None:
    with pytest.raises(Fatal, match=r"there is no table of nothing .*; there are tables of: things"):
        ask(spec, collection="nothing")


def test_a_request_that_cannot_be_read_is_told_once_and_stops_nothing(table: MaintainedTable) -> None:
    table.writer.set_properties({REQUEST: '{"id": 3}'})
    with structlog.testing.capture_logs() as said:
        for key in range(3):
            table.apply([(key, {"n": 0})])
    [line] = [each for each in said if each["event"] == "a request to optimize is passed over"]
    assert "cdc.optimize is not a request" in line["reason"]


def test_a_table_in_shape_is_left_alone(tmp_path: Path) -> None:
    url = table_url(str(tmp_path / "lake"), *LABELS)
    with MaintainedTable(url, STORES, tmp_path / "cache", POLICY) as table:
        table.apply([(1, {"n": 1})])
        table.writer.set_properties(request_property(OptimizeRequest(id="a", asked_ms=0, vacuum=False)))
        turn_until_done(table, "a")
        assert len(table.writer.snapshot.files) == 1
        metadata = table.writer.snapshot.metadata
        assert metadata is not None
        report = last_report(metadata)
        assert report is not None
        assert (report.files_read, report.files_written) == (0, 0)
