"""Which rows a sweep finds in a table's files."""

import random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import LocalStore

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.stats import file_stats
from delta_writer.snapshots.doomed_rows import SweepRule

pytestmark = pytest.mark.unit


def make_file(tmp_path, rows, *, stats=True, group_rows=7):
    """Write (partition, offset) rows to a data file with several row groups."""
    table = pa.table(
        {
            "_cdc_partition": pa.array([row[0] for row in rows], pa.int32()),
            "_cdc_offset": pa.array([row[1] for row in rows], pa.int64()),
            "other": pa.array(["x"] * len(rows)),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=group_rows)
    footer = pq.read_metadata(tmp_path / "f.parquet")
    size = (tmp_path / "f.parquet").stat().st_size
    return AddFile("f.parquet", {}, size, 0, True, file_stats(table, footer) if stats else None), table


def test_random_files_and_rules_agree_with_sql(tmp_path, rng: random.Random):
    """Attacks I9: exactly the rows that the rule names are found, and no file that has one is passed over."""
    store = LocalStore(tmp_path)
    for _ in range(40):
        rows = [(rng.randrange(5), rng.randrange(50)) for _ in range(rng.randrange(1, 40))]
        file, table = make_file(tmp_path, rows, stats=rng.random() < 0.8)
        base = rng.randrange(4)
        rule = SweepRule(base, {base + p: rng.randrange(50) for p in range(rng.randrange(4))})
        found = set(rule.rows_of(file, store))
        sql = f"SELECT i FROM (SELECT *, row_number() OVER () - 1 AS i FROM t) WHERE {rule.predicate()}"
        assert found == {row[0] for row in duckdb.from_arrow(table).query("t", sql).fetchall()}
        assert rule.admits(file) or not found


def test_a_file_of_later_rows_alone_is_not_read(tmp_path):
    file, _ = make_file(tmp_path, [(1, 10), (2, 12)])
    assert not SweepRule(1, {1: 10, 2: 5}).admits(file)
    assert SweepRule(1, {1: 11, 2: 5}).admits(file)
    assert SweepRule(2, {}).admits(file)
