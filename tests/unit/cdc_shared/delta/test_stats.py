"""File statistics: bounds may be wide, never narrow."""

import json
import math
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdc_shared.delta.stats import INDEXED_COLUMNS, file_stats, truncated_maximum, with_loose_bounds

pytestmark = pytest.mark.unit


def stats_of(table: pa.Table, **options: object) -> dict:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return json.loads(file_stats(table, pq.read_metadata(pa.BufferReader(sink.getvalue()))))


def test_bounds_and_nulls_of_every_indexed_type():
    table = pa.table(
        {
            "long": pa.array([3, None, -5]),
            "text": ["b", "a", None],
            "time": pa.array([datetime(2024, 1, 1, 0, 0, 0, 1500, UTC), None, None], pa.timestamp("us", "UTC")),
            "nested": [{"x": 1, "y": "q"}, None, {"x": None, "y": "r"}],
            "list": [[1], [], None],
        }
    )
    stats = stats_of(table)
    assert stats["numRecords"] == 3
    assert stats["minValues"] == {
        "long": -5,
        "text": "a",
        "time": "2024-01-01T00:00:00.001Z",
        "nested": {"x": 1, "y": "q"},
    }
    assert stats["maxValues"]["nested"] == {"x": 1, "y": "r"}
    assert stats["nullCount"] == {"long": 1, "text": 1, "time": 2, "nested": {"x": 2, "y": 1}}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_floats_that_json_cannot_say_have_no_bounds(value):
    stats = stats_of(pa.table({"x": [1.0, value], "nested": [{"y": value}, {"y": 2.0}]}))
    assert stats["minValues"] == stats["maxValues"] == {}


def test_bounds_cover_every_row_group():
    assert stats_of(pa.table({"x": list(range(100))}), row_group_size=10)["maxValues"] == {"x": 99}


def test_a_row_group_without_bounds_leaves_the_file_without():
    """Arrow writes no bounds for values above 4 KiB; those of the other row groups alone would hide the long value."""
    table = pa.table({"s": ["m", "m", "z" * 5000], "x": [None, None, 1]})
    stats = stats_of(table, row_group_size=2)
    assert stats["maxValues"] == {"x": 1}
    assert stats["nullCount"] == {"s": 0, "x": 2}


@pytest.mark.parametrize("text", ["", "a" * 32, "a" * 33, "é" * 40, "a" * 32 + "\U0010ffff" * 3 + "z"])
def test_a_truncated_maximum_is_never_below(text):
    assert truncated_maximum(text).encode() >= text.encode()


def test_only_the_first_columns_are_indexed():
    table = pa.table({f"c{i}": [i] for i in range(50)})
    assert len(stats_of(table)["minValues"]) == INDEXED_COLUMNS


def test_loose_bounds_are_said_once():
    loose = with_loose_bounds('{"numRecords":1}')
    assert loose is not None
    assert json.loads(loose) == {"numRecords": 1, "tightBounds": False}
    assert with_loose_bounds(loose) == loose
    assert with_loose_bounds(None) is None
