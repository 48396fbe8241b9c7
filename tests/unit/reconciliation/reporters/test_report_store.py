"""Reports are written to their place, replaced, and done without."""

import asyncio
import json
from pathlib import Path
from uuid import UUID

import pytest
from reconciliation_reports import JOB_ID, RUN_ID, STARTED, difference, report

from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import JobOptions, JobState, Mode, Notifications, Overlap
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.report_files import REPORT_FORMATS, read_report
from reconciliation.reporters.report_store import save_report, write_to_lake
from reconciliation.reporters.report_writer import ReportWriter
from reconciliation.scheduler.job import Claim, Job, Run
from reconciliation.scheduler.result_store import WrittenReport

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings()


def test_the_three_forms_lie_beside_the_tables_and_can_be_read(tmp_path: Path) -> None:
    url = write_to_lake(report([difference(key="k1")]), str(tmp_path), STORES)
    assert url == f"{tmp_path}/shop/_reconciliation/shop/orders/{RUN_ID}"
    texts = {form: b"".join(read_report(url, form, STORES)) for form in REPORT_FORMATS}
    assert json.loads(texts["json"])["run_id"] == RUN_ID
    assert b"k1" in texts["csv"]
    assert texts["html"].startswith(b"<!DOCTYPE html>") or b"<!DOCTYPE html>" in texts["html"][:50]


def test_a_second_attempt_replaces_the_first(tmp_path: Path) -> None:
    write_to_lake(report([difference(key="old" * 1_000)]), str(tmp_path), STORES)
    url = write_to_lake(report(), str(tmp_path), STORES)
    assert json.loads(b"".join(read_report(url, "json", STORES)))["differences"] == []


def test_large_reports_are_written_in_pieces_whole(tmp_path: Path) -> None:
    found = [difference(key=str(number), document={"text": "x" * 4_000}) for number in range(3_000)]
    url = write_to_lake(report(found), str(tmp_path), STORES)
    told = json.loads(b"".join(read_report(url, "json", STORES)))
    assert [each["key"] for each in told["differences"]] == [str(number) for number in range(3_000)]


def test_a_lake_that_cannot_be_written_costs_the_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lost: list[str] = []
    job = Job(
        Claim(UUID(JOB_ID), "w", 1), 1, "shop", None, Mode.FULL, JobOptions(), Notifications(), Overlap.QUEUE, None,
        "ann", STARTED,
    )  # fmt: skip
    run = Run(UUID(RUN_ID), "shop", "orders", JobState.RUNNING, started_at=STARTED)
    result = report([difference(key="k1")]).result

    def write(root: Path) -> WrittenReport:
        spec = PipelineSpec(name="shop", source={"connection": "env:M", "database": "shop"}, sink={"root": str(root)})
        return ReportWriter(STORES, lost.append)(job, run, spec, result, STARTED)

    assert write(tmp_path / "file").lake_path is None
    assert lost == ["shop"]
    written = write(tmp_path / "lake")
    assert written.lake_path
    assert json.loads(b"".join(read_report(written.lake_path, "json", STORES)))["requested_by"] == "ann"
    assert lost == ["shop"]


def test_what_postgres_gets_is_json_that_it_can_hold() -> None:
    calls = []

    class Postgres:
        async def execute(self, query: str, *args: object) -> str:
            calls.append(args)
            return "INSERT 0 1"

    made = report([difference(key="a\x00\ud800")])
    asyncio.run(save_report(Postgres(), made, "s3://lake/x"))
    ((run_id, text, lake_path),) = calls
    assert (run_id, lake_path) == (RUN_ID, "s3://lake/x")
    assert "\\u0000" not in text.replace("\\\\u0000", "")
    assert json.loads(text)["differences"][0]["key"] == "a\\u0000\\ud800"
