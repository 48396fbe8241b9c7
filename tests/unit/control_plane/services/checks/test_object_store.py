"""The place for the tables: written without a trace, and looked at for what is not ours."""

from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore

from cdc_shared.delta.actions import Action, Metadata
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.table_metadata import TableIdentity, new_metadata, protocol_for
from cdc_shared.documents import DocumentSchema
from cdc_shared.errors import Fatal
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from control_plane.models.preflight import CheckOutcome
from control_plane.services.checks.check import Finding
from control_plane.services.checks.object_store import target, writable

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings(
    endpoint=None, access_key_id=None, secret_access_key=None, session_token=None, delta_root=None, metrics_url=None
)


def spec(root: Path, **fields: Any) -> PipelineSpec:
    source = {"connection": "env:X", "database": "shop"}
    return PipelineSpec.model_validate({"name": "p", "source": source, "sink": {"root": str(root)}} | fields)


def make_table(root: Path, where: str, identity: TableIdentity, mode: str = "deletion_vectors") -> None:
    """A table that has metadata and nothing else, as the writer begins one."""
    metadata: Metadata = new_metadata(identity, DocumentSchema(()), mode, 1, 0)
    store = LocalStore(root / where, mkdir=True)
    DeltaLog(store).append(0, [Action(protocol=protocol_for(mode)), Action(meta_data=metadata)])


def test_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there" / "yet"
    assert writable(STORES, spec(root)).outcome is CheckOutcome.OK
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_overwrites_is_refused_and_the_probe_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, key, body, **_: put(store, key, body))
    finding = writable(STORES, spec(tmp_path))
    assert finding.outcome is CheckOutcome.FAILED
    assert "If-None-Match" in finding.message
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match="cannot be opened"):
        writable(STORES, spec(tmp_path / "file"))


def test_no_root_at_all_is_said() -> None:
    without = PipelineSpec.model_validate({"name": "p", "source": {"connection": "env:X", "database": "shop"}})
    with pytest.raises(Fatal, match="DELTA_ROOT"):
        writable(STORES, without)


def test_an_empty_target_is_not_made(tmp_path: Path) -> None:
    assert target(STORES, spec(tmp_path / "lake")).outcome is CheckOutcome.OK
    assert list(tmp_path.iterdir()) == []


def test_tables_of_this_pipeline_are_ours(tmp_path: Path) -> None:
    make_table(tmp_path, "p/shop/orders", TableIdentity("p", "shop", "orders"))
    make_table(tmp_path, "p/shop/orders__changes", TableIdentity("p", "shop", "orders"), mode="history")
    make_table(tmp_path, "p/shop/a_x20_b", TableIdentity("p", "shop", "a b"))
    (tmp_path / "p" / "_dead_letters" / "x").mkdir(parents=True)
    (tmp_path / "p" / "_dead_letters" / "x" / "letter").touch()
    (tmp_path / "p" / "_reconciliation" / "shop" / "orders").mkdir(parents=True)
    (tmp_path / "p" / "_reconciliation" / "shop" / "orders" / "report.json").touch()
    finding = target(STORES, spec(tmp_path))
    assert finding.outcome is CheckOutcome.OK
    assert finding.message.startswith("3 tables of this pipeline")


def refused(root: Path, part: str, **fields: Any) -> None:
    finding: Finding = target(STORES, spec(root, **fields))
    assert finding.outcome is CheckOutcome.FAILED
    assert part in finding.message


def test_what_is_not_ours_is_named(tmp_path: Path) -> None:
    make_table(tmp_path / "a", "p/shop/orders", TableIdentity("other", "shop", "orders"))
    refused(tmp_path / "a", "belongs to pipeline other")
    make_table(tmp_path / "b", "p/shop/orders", TableIdentity("p", "shop", "customers"))
    refused(tmp_path / "b", "p/shop/orders")
    make_table(tmp_path / "c", "p/shop/orders", TableIdentity("p", "shop", "orders"))
    refused(tmp_path / "c", "sink.mode", sink={"root": str(tmp_path / "c"), "mode": "copy_on_write"})
    refused(tmp_path / "c", "partitions", topic_partitions=2)
    (tmp_path / "d" / "p" / "shop" / "orders").mkdir(parents=True)
    (tmp_path / "d" / "p" / "shop" / "orders" / "x.parquet").touch()
    refused(tmp_path / "d", "no Delta table")


@pytest.mark.parametrize("where", ["p", "p/shop"])
def test_a_table_where_none_may_be(tmp_path: Path, where: str) -> None:
    make_table(tmp_path, where, TableIdentity("p", "shop", "orders"))
    with pytest.raises(Fatal, match="is itself a Delta table"):
        target(STORES, spec(tmp_path))
