"""Pinned versions stay as they are, and rows of keys are found in later ones at the cost of what came since."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from maintained_table import TableWriter
from scanned_table import hash_of, locations_by_hash, scan_table

from cdc_shared.delta.log import VersionGone
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.documents import canonical_row, key_text
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from reconciliation.sources.deltalake_reader import KeyedRows, PinnedTable, RowLocation

pytestmark = pytest.mark.unit

SEED = 5
STORES = ObjectStoreSettings(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def writer(tmp_path: Path) -> TableWriter:
    return TableWriter(str(tmp_path / "table"), STORES, tmp_path / "cache")


def pinned(writer: TableWriter) -> PinnedTable:
    return PinnedTable.newest(open_store(writer.url, STORES), writer.topic)


def test_a_version_says_where_it_stands(writer: TableWriter) -> None:
    writer.apply([(1, {"n": 1}), (2, {"n": 2})])
    writer.apply([(3, {"n": 3})])
    table = pinned(writer)
    assert table.positions == {0: 3}
    assert table.watermark_ms is None
    assert table.partition_base == 0
    before = PinnedTable.at(table.store, writer.topic, table.version - 1)
    assert before.positions == {0: 2}
    assert PinnedTable(table.store, ChangeTopic("p.db.things", "another-id", 1), table.snapshot).positions == {0: 0}
    assert before.table_id == table.table_id


def test_what_cannot_be_pinned(writer: TableWriter) -> None:
    store = open_store(writer.url, STORES)
    with pytest.raises(Fatal, match="no table for p"):
        PinnedTable.newest(store, writer.topic)
    writer.apply([(1, {"n": 1})])
    with pytest.raises(VersionGone):
        PinnedTable.at(store, writer.topic, 99)


def test_rows_are_those_of_the_version(writer: TableWriter) -> None:
    writer.apply([(key, {"n": key}) for key in range(10)])
    old = pinned(writer)
    places = locations_by_hash(old, scan_table(old))
    writer.apply([(1, {"n": 100}), (2, None)])
    new = pinned(writer)
    of_old = {row.key: row.values["n"] for row in old.rows(places.values())}
    of_new = {row.key: row.values["n"] for row in new.rows(places.values())}
    assert of_old == {str(key): key for key in range(10)}
    assert of_new == {str(key): key for key in range(10) if key not in (1, 2)}
    assert list(new.rows([RowLocation("not-there.parquet", 0)])) == []


def test_keys_are_found_in_version_after_version(writer: TableWriter) -> None:
    """Under random changes, whatever keys, and files known or not: the rows are the model's, once each."""
    rng = random.Random(SEED)
    keys = range(60)
    wanted = [hash_of(key_text(key)) for key in rng.sample(keys, 30)]
    writer.apply([(key, {"n": 0}) for key in rng.sample(keys, 40)])
    first = pinned(writer)
    places = {each: [place] for each, place in locations_by_hash(first, scan_table(first)).items()}
    followers = [KeyedRows(wanted), KeyedRows(wanted, places, first.snapshot.files)]
    for round_ in range(1, 12):
        writer.apply([(key, None if rng.random() < 0.3 else {"n": round_}) for key in rng.sample(keys, 15)])
        table = pinned(writer)
        model = {hash_of(key): form for key, form in writer.model.items()}
        for follower in followers:
            found = list(follower.find(table))
            assert len(found) == len({each for each, _ in found}), f"seed {SEED}, round {round_}"
            assert {each: canonical_row(row.values, table.schema, row.rescued) for each, row in found} == {
                each: model[each] for each in wanted if each in model
            }, f"seed {SEED}, round {round_}"
        some = wanted[: round_ % 5]
        assert {each for each, _ in followers[0].find(table, some)} == {each for each in some if each in model}


def test_only_new_files_are_searched(writer: TableWriter) -> None:
    wanted = [hash_of(key_text(key)) for key in (1, 2)]
    writer.apply([(key, {"n": 0}) for key in range(50)])
    first = pinned(writer)
    follower = KeyedRows(wanted, {}, first.snapshot.files)
    assert follower.search(first) == 0
    writer.apply([(2, {"n": 1})])
    writer.apply([(7, {"n": 1})])
    assert follower.search(pinned(writer)) == 2
    assert follower.search(pinned(writer)) == 0
    # What is said to be searched is believed: key 1 has a row there, but nobody said where.
    assert {each for each, _ in follower.find(pinned(writer))} == {hash_of("2")}


def test_rows_that_a_compaction_has_moved_are_found(writer: TableWriter) -> None:
    writer.apply([(key, {"n": 0}) for key in range(20)])
    first = pinned(writer)
    wanted = [hash_of(key_text(key)) for key in range(20)]
    places = {each: [place] for each, place in locations_by_hash(first, scan_table(first)).items()}
    follower = KeyedRows(wanted, places, first.snapshot.files)
    for key in range(8):
        writer.apply([(key, {"n": 1})])
    DeltaTable(writer.url).optimize.compact()
    table = pinned(writer)
    assert len(table.snapshot.files) == 1
    assert not set(first.snapshot.files) & set(table.snapshot.files)
    found = {row.key: row.values["n"] for _, row in follower.find(table)}
    assert found == {str(key): int(key < 8) for key in range(20)}


def test_all_rows_of_a_doubled_key_are_found(writer: TableWriter) -> None:
    writer.apply([(1, {"n": 1}), (2, {"n": 2})])
    table = pinned(writer)
    places = locations_by_hash(table, scan_table(table))
    copy: list[dict[str, Any]] = [dict(row.values) for row in table.rows(places.values())]
    write_deltalake(writer.url, pa.Table.from_pylist(copy[:1], schema=table.columns), mode="append")
    wanted = [hash_of(str(row["_cdc_key"])) for row in copy]
    found = [each for each, _ in KeyedRows(wanted).find(pinned(writer))]
    assert sorted(found) == sorted([wanted[0], *wanted])
