"""A scan gives each live row of the pinned version once, whoever wrote the files and however they are cut."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from maintained_table import TableWriter
from scanned_table import digests_by_hash, hash_of, locations_by_hash, rows_by_hash, scan_table

from cdc_shared.delta.actions import AddFile
from cdc_shared.documents import canonical_row, digest, key_text
from cdc_shared.errors import Fatal
from cdc_shared.models.reconciliation import Mode
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from reconciliation.reconciler.row_digest import row_digests
from reconciliation.reconciler.spill import KEYLESS
from reconciliation.sources import data_file
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.key_selection import KeySelection
from reconciliation.sources.sink_scan import FileSlice, plan_sink_scan

pytestmark = pytest.mark.unit

SEED = 11
STORES = ObjectStoreSettings(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def writer(tmp_path: Path) -> TableWriter:
    return TableWriter(str(tmp_path / "table"), STORES, tmp_path / "cache")


def document(rng: random.Random) -> dict[str, Any]:
    """One of several shapes, so that columns come later, and some values do not fit."""
    values: list[dict[str, Any]] = [
        {"name": f"n{rng.random()}", "n": rng.randrange(1000)},
        {"n": rng.randrange(1000), "in": {"a": rng.random(), "b": [1, 2]}},
        {"n": "a text", "late": rng.random() < 0.5},
        {"tags": ["x"] * rng.randrange(3)},
    ]
    return rng.choice(values)


def fill(writer: TableWriter, rng: random.Random, batches: int = 8) -> None:
    for _ in range(batches):
        keys = rng.sample(range(300), 60)
        writer.apply([(key, None if rng.random() < 0.2 else document(rng)) for key in keys])


def pinned(writer: TableWriter) -> PinnedTable:
    return PinnedTable.newest(open_store(writer.url, STORES), writer.topic)


def expected_hashes(writer: TableWriter) -> Counter[tuple[int, int]]:
    return Counter(hash_of(key) for key in writer.model)


@pytest.mark.parametrize("task_rows", [7, 100, 1_000_000])
def test_each_live_row_comes_once_with_its_place(writer: TableWriter, task_rows: int) -> None:
    fill(writer, random.Random(SEED))
    table = pinned(writer)
    parts = scan_table(table, task_rows=task_rows)
    assert rows_by_hash(parts) == expected_hashes(writer), f"seed {SEED}"
    assert (len(parts) > 1) == (task_rows < 100_000)
    places = locations_by_hash(table, parts)
    found = {hash_of(row.key or ""): row.location for row in table.rows(places.values())}
    assert found == places
    for part in parts:
        high = part.rows["hash_hi"].to_numpy()
        assert (high[1:] >> np.uint64(40) >= high[:-1] >> np.uint64(40)).all()


def test_the_digest_is_the_rows_whatever_file_it_is_in(writer: TableWriter) -> None:
    fill(writer, random.Random(SEED))
    table = pinned(writer)
    parts = scan_table(table, task_rows=50)
    rows = list(table.rows(locations_by_hash(table, parts).values()))
    whole = pa.Table.from_pylist([dict(row.values) for row in rows], schema=table.columns)
    hashes = [hash_of(row.key or "") for row in rows]
    assert digests_by_hash(parts) == dict(
        zip(hashes, map(tuple, row_digests(whole, table.schema).tolist()), strict=True)
    )
    rescued = sum(row.rescued is not None for row in rows)
    assert rescued > 0
    assert sum(part.facts["rescued"] for part in parts) == rescued
    assert sum(part.facts["deleted"] for part in parts) > 0


def test_a_mostly_deleted_file_gives_the_same(writer: TableWriter) -> None:
    writer.apply([(key, {"n": key}) for key in range(100)])
    writer.apply([(key, None) for key in range(5, 100)])
    parts = scan_table(pinned(writer), sample_mask=0)
    assert rows_by_hash(parts) == expected_hashes(writer)
    assert [part.facts["deleted"] for part in parts] == [95]
    assert {row["canonical"] for part in parts for row in part.rows.to_pylist()} == {
        digest(canonical) for canonical in writer.model.values()
    }


def test_the_sample_is_told_by_the_hash_and_holds_the_canonical_form(writer: TableWriter) -> None:
    fill(writer, random.Random(SEED))
    table = pinned(writer)
    mask = 0b11
    parts = scan_table(table, sample_mask=mask, task_rows=50)
    canonical = {hash_of(key): digest(form) for key, form in writer.model.items()}
    rows = [row for part in parts for row in part.rows.to_pylist()]
    for row in rows:
        sampled = row["hash_lo"] & mask == 0
        assert row["canonical"] == (canonical[row["hash_hi"], row["hash_lo"]] if sampled else None)
    assert 0 < sum(row["canonical"] is not None for row in rows) < len(rows)
    some = next(table.rows(locations_by_hash(table, parts).values()))
    assert digest(canonical_row(some.values, table.schema, some.rescued)) == canonical[hash_of(some.key or "")]


def test_keys_alone(writer: TableWriter) -> None:
    fill(writer, random.Random(SEED))
    parts = scan_table(pinned(writer), mode=Mode.KEYS)
    assert rows_by_hash(parts) == expected_hashes(writer)
    assert all(digest == (0, 0) for digest in digests_by_hash(parts).values())


def test_a_selection_has_the_changed_keys_and_its_share_of_the_others(writer: TableWriter) -> None:
    fill(writer, random.Random(SEED))
    table = pinned(writer)
    changed = [key for key in writer.model if int(key) % 50 == 0]
    assert changed
    turns = []
    for rotation in range(4):
        selection = KeySelection.of(changed, 0.25, rotation)
        found = rows_by_hash(scan_table(table, selection=selection))
        assert all(hash_of(key) in found for key in changed)
        turns.append(set(found) - {hash_of(key) for key in changed})
    assert sum(map(len, turns)) == len(writer.model) - len(changed)
    assert set.union(*turns) | {hash_of(key) for key in changed} == set(expected_hashes(writer))
    only = KeySelection.of(changed, 0.0, 0)
    assert rows_by_hash(scan_table(table, selection=only)) == Counter(hash_of(key) for key in changed)


def test_files_of_another_writer_are_read_as_the_table_has_them(writer: TableWriter, tmp_path: Path) -> None:
    """delta-rs: row groups of its own, columns left out, no key, another order of columns, a copy of a row."""
    writer.apply([(key, {"name": f"n{key}", "n": key}) for key in range(40)])
    table = pinned(writer)
    whole = pa.Table.from_pylist(
        [dict(row.values) for row in table.rows(locations_by_hash(table, scan_table(table)).values())],
        schema=table.columns,
    )
    foreign = whole.slice(0, 3).select(list(reversed(whole.column_names)))
    write_deltalake(writer.url, foreign, mode="append")
    write_deltalake(writer.url, foreign.select(["n", "_cdc_key"]).slice(0, 1), mode="append", schema_mode="merge")
    keyless = pa.table({"n": pa.array([1, 2], pa.int64())})
    write_deltalake(writer.url, keyless, mode="append", schema_mode="merge")
    after = pinned(writer)
    parts = scan_table(after)
    found = rows_by_hash(parts)
    doubled = {hash_of(key or "") for key in foreign["_cdc_key"].to_pylist()}
    once_more = hash_of(foreign["_cdc_key"][0].as_py())
    assert found.pop(KEYLESS) == 2
    assert sum(part.facts["keyless"] for part in parts) == 2
    assert {each for each, rows in found.items() if rows > 1} == doubled
    assert found[once_more] == 3
    of_key: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for part in parts:
        for row in part.rows.to_pylist():
            of_key.setdefault((row["hash_hi"], row["hash_lo"]), set()).add((row["digest_hi"], row["digest_lo"]))
    assert {each: len(digests) for each, digests in of_key.items() if each in doubled} == dict.fromkeys(doubled, 1) | {
        once_more: 2  # the copy that lacks columns says something else
    }


def test_a_copy_on_write_table(tmp_path: Path, new_copy_on_write: Callable[[], TableWriter]) -> None:
    writer = new_copy_on_write()
    fill(writer, random.Random(SEED), batches=3)
    parts = scan_table(pinned(writer), task_rows=20)
    assert rows_by_hash(parts) == expected_hashes(writer)


@pytest.fixture
def new_copy_on_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], TableWriter]:
    from delta_writer.writer.copy_on_write_writer import CopyOnWriteWriter

    monkeypatch.setattr("maintained_table.DeletionVectorWriter", CopyOnWriteWriter)
    return lambda: TableWriter(str(tmp_path / "cow"), STORES, tmp_path / "cow-cache")


@pytest.mark.parametrize("small", [0, data_file.SMALL_BYTES])
@pytest.mark.parametrize("window", [0, data_file.MAX_WINDOW_BYTES])
def test_slices_of_one_file_give_each_row_once(
    writer: TableWriter, monkeypatch: pytest.MonkeyPatch, small: int, window: int
) -> None:
    """Whatever its row groups, and whether it is fetched whole, by row group or piece by piece."""
    monkeypatch.setattr(data_file, "SMALL_BYTES", small)
    monkeypatch.setattr(data_file, "MAX_WINDOW_BYTES", window)
    writer.apply([(0, {"n": 0, "s": "x"})])
    table = pinned(writer)
    row = next(iter(table.rows(locations_by_hash(table, scan_table(table)).values())))
    rows = pa.Table.from_pylist(
        [dict(row.values) | {"_cdc_key": key_text(n), "_id": n, "n": n} for n in range(5_000)], schema=table.columns
    )
    pq.write_table(rows, Path(writer.url) / "one.parquet", row_group_size=333)
    size = (Path(writer.url) / "one.parquet").stat().st_size
    file = AddFile("one.parquet", {}, size, 0, True, '{"numRecords":5000}')
    table.snapshot.files = {"one.parquet": file}
    parts = scan_table(table, task_rows=900)
    assert len(parts) == 6
    assert rows_by_hash(parts) == Counter(hash_of(key_text(n)) for n in range(5_000))
    places = locations_by_hash(table, parts)
    assert [places[hash_of(key_text(n))].position for n in range(5_000)] == list(range(5_000))


def test_a_plan_fills_tasks_with_small_files_and_cuts_large_ones() -> None:
    def file(rows: int | None) -> AddFile:
        return AddFile("f", {}, 1, 0, True, None if rows is None else f'{{"numRecords":{rows}}}')

    plan = plan_sink_scan([file(3), file(4), file(5), file(25), file(None)], task_rows=10)
    assert plan == [
        [FileSlice(0, 0, None), FileSlice(1, 0, None)],
        [FileSlice(2, 0, None)],
        [FileSlice(3, 0, 8)],
        [FileSlice(3, 8, 16)],
        [FileSlice(3, 16, None)],
        [FileSlice(4)],
    ]
    assert plan_sink_scan([]) == []


def test_a_file_that_vacuum_has_taken_is_named(writer: TableWriter) -> None:
    writer.apply([(1, {"n": 1})])
    table = pinned(writer)
    (path,) = table.snapshot.files
    (Path(writer.url) / path).unlink()
    with pytest.raises(Fatal, match=f"has lost {path}.*newer version"):
        scan_table(table)


@pytest.mark.parametrize("body", [b"not a Parquet file at all", None])
def test_a_damaged_file_is_named_and_shows_no_values(writer: TableWriter, body: bytes | None) -> None:
    writer.apply([(1, {"n": 1})])
    table = pinned(writer)
    (path,) = table.snapshot.files
    place = Path(writer.url) / path
    if body is None:  # a column that cannot be the table's
        rows = pq.read_table(place)
        at = rows.column_names.index("n")
        pq.write_table(rows.set_column(at, "n", pa.array(["a secret"])), place)
    else:
        place.write_bytes(body)
    table.snapshot.files[path] = AddFile(path, {}, place.stat().st_size, 0, True, '{"numRecords":1}')
    with pytest.raises(Fatal, match=f"{path} cannot be read") as raised:
        scan_table(table)
    assert "secret" not in str(raised.value)
