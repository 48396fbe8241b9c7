"""Reports are written to their place, replaced, done without, and cleaned up."""

import asyncio
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from reconciliation_reports import RUN_ID, difference, report

from cdc_shared.errors import Transient
from cdc_shared.models.collection import Collection
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.report_files import REPORT_FORMATS, read_report
from reconciliation.reporters import report_store
from reconciliation.reporters.report_store import expire_in_lake, save_report, write_to_lake, written_to_lake

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


def test_a_lake_that_cannot_be_written_costs_the_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    stop = threading.Event()
    assert written_to_lake(report(), str(tmp_path / "file"), STORES, stop) is None

    calls = []

    def away(*_: object) -> str:
        calls.append(1)
        if len(calls) < 3:
            raise Transient("the store is away")
        return "url"

    monkeypatch.setattr(report_store, "write_to_lake", away)
    assert written_to_lake(report(), str(tmp_path), STORES, stop) == "url"
    stop.set()
    calls.clear()
    assert written_to_lake(report(), str(tmp_path), STORES, stop) is None, "the service ends: it does not wait"
    assert len(calls) == 1


def test_what_is_old_goes_unless_postgres_still_has_the_run(tmp_path: Path) -> None:
    root = str(tmp_path)
    url = write_to_lake(report(), root, STORES)
    other = write_to_lake(report(collection=Collection("shop", "a/b")), root, STORES)
    for form in REPORT_FORMATS:
        os.utime(f"{other}.{form}", (1_000_000_000, 1_000_000_000))
    before = datetime.now(UTC) - timedelta(days=90)
    assert expire_in_lake(root, "shop", STORES, before, {RUN_ID}) == 0
    assert expire_in_lake(root, "other", STORES, before, set()) == 0
    assert expire_in_lake(root, "shop", STORES, before, {"another"}) == 3
    assert Path(f"{url}.html").exists()
    assert not Path(f"{other}.html").exists()


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
