"""Where reports lie, and what reading them says when they do not."""

from pathlib import Path

import obstore
import pytest

from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from cdc_shared.storage.report_files import ReportGone, delete_report, read_report, report_url, reports_directory

pytestmark = pytest.mark.unit
STORES = ObjectStoreSettings()


def test_names_are_taken_literally() -> None:
    url = report_url("s3://lake/delta/", "shop", Collection("shop", "a/../b c"), "4f")
    assert url == "s3://lake/delta/shop/_reconciliation/shop/a_x2f_.._x2f_b_x20_c/4f"
    assert url.startswith(reports_directory("s3://lake/delta", "shop") + "/")


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    url = report_url(str(tmp_path), "p", Collection("db", "c"), "run")
    obstore.put(open_store(url.rpartition("/")[0], STORES), "run.csv", b"x" * 20_000_000)
    pieces = list(read_report(url, "csv", STORES))
    assert len(pieces) > 1, "a large report is not held in memory"
    assert b"".join(pieces) == b"x" * 20_000_000


def test_a_report_that_is_gone_is_named(tmp_path: Path) -> None:
    url = report_url(str(tmp_path), "p", Collection("db", "c"), "run")
    with pytest.raises(ReportGone, match=r"run\.html: its retention is over"):
        read_report(url, "html", STORES)


def test_a_report_is_deleted_whole_and_twice_is_no_error(tmp_path: Path) -> None:
    url = report_url(str(tmp_path), "p", Collection("db", "c"), "run")
    store = open_store(url.rpartition("/")[0], STORES)
    for name in ("run.json", "run.html", "other.json"):
        obstore.put(store, name, b"x")
    delete_report(url, STORES)
    delete_report(url, STORES)
    assert [each.name for each in tmp_path.rglob("*.*")] == ["other.json"]


def test_nothing_else_is_read_or_deleted(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    for touch in (lambda path: read_report(path, "json", STORES), lambda path: delete_report(path, STORES)):
        with pytest.raises(Fatal, match="not where reports"):
            touch(f"{tmp_path}/secret")
    assert (tmp_path / "secret.json").exists()
