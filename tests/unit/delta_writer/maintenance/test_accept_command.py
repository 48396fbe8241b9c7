"""`delta-writer accept`: what it says, and that a dry run neither asks nor writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.maintenance import accept_command
from delta_writer.maintenance.accept_command import accept_collection

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings()


class NotConfirmed(Exception):
    """The answer was no."""


@pytest.fixture
def table(new_table: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pipeline p's table of db.things, closed, where its spec has it; Kafka is asked only for the topic's identity."""
    monkeypatch.setattr(accept_command, "AdminClient", lambda _: None)
    monkeypatch.setattr(accept_command, "topic_of_table", lambda *_: ChangeTopic("p.db.things", "topic-id", 1))
    made = new_table()
    made.url = f"{tmp_path}/p/db/things"
    made.store = open_store(made.url, STORES)
    writer = made.open()
    made.apply(writer, [(n, {"n": n}) for n in range(9)])
    writer.close()
    return made


def accept(table: Any, *, dry_run: bool = False, confirm: Callable[[], None] = lambda: None) -> list[str]:
    said: list[str] = []
    spec = PipelineSpec.model_validate(
        {
            "name": "p",
            "source": {"connection": "env:SOURCE", "database": "db", "include_collections": ["things"]},
            "sink": {"root": table.url.removesuffix("/p/db/things")},
        }
    )
    accept_collection("kafka:9092", STORES, spec, "things", said.append, dry_run=dry_run, confirm=confirm)
    return said


def refuse() -> None:
    raise NotConfirmed


def newest(table: Any) -> int:
    return DeltaLog(table.store).load().version


def test_a_dry_run_says_what_others_did_and_neither_asks_nor_writes(table: Any) -> None:
    DeltaTable(table.url).delete("n = 2")
    before = newest(table)
    told, end = accept(table, dry_run=True, confirm=refuse)
    assert f"version {before}: DELETE by delta-rs" in told
    assert end == "nothing was written (--dry-run)"
    assert newest(table) == before
    assert accept(table)[0] == told, "it is still to be accepted"
    assert newest(table) == before + 1


def test_who_does_not_confirm_has_accepted_nothing(table: Any) -> None:
    DeltaTable(table.url).delete("n = 2")
    before = newest(table)
    with pytest.raises(NotConfirmed):
        accept(table, confirm=refuse)
    assert newest(table) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_where_others_did_nothing_nobody_is_asked(table: Any, dry_run: bool) -> None:
    before = newest(table)
    (told,) = accept(table, dry_run=dry_run, confirm=refuse)
    assert "there is nothing to accept" in told
    assert newest(table) == before
