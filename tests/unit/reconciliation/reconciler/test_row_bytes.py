"""Bytes of rows whose arrays stand in them column by column."""

import numpy as np
import pyarrow as pa
import pytest

from cdc_shared.documents import types as t
from reconciliation.reconciler.row_bytes import row_bytes

pytestmark = pytest.mark.unit

ITEM = t.Struct((t.Field("name", t.STRING), t.Field("tags", t.List(t.STRING)), t.Field("n", t.LONG)))


def bytes_of(rows: list[object]) -> list[bytes]:
    array = pa.array(rows, t.List(ITEM).storage)
    encoded: list[bytes] = row_bytes([array], [t.List(ITEM)], len(rows)).to_pylist()
    return encoded


def test_arrays_that_hold_the_same_texts_at_other_places_differ() -> None:
    rows = [
        [{"name": "ab"}, {"name": "c"}], [{"name": "a"}, {"name": "bc"}], [{"name": "abc"}, {"name": ""}],
        [{"name": "abc"}, {}], [{"name": "abc"}, None], [{"name": "abc"}], [{"name": "abc", "tags": []}],
        [{"tags": ["abc"]}], [{"tags": ["ab", "c"]}], [{"tags": ["ab"]}, {"tags": ["c"]}], [{"tags": ["abc", None]}],
        [{"name": "ab", "tags": ["c"]}], [{"name": "a", "tags": ["bc"]}], [{"n": 0}, {"name": "abc"}], [], None,
    ]  # fmt: skip
    together = bytes_of(rows)
    assert len(set(together)) == len(rows)
    assert together == [bytes_of([row])[0] for row in rows]


def test_bytes_behind_a_null_element_are_not_looked_at() -> None:
    texts = pa.Array.from_buffers(
        pa.string(),
        2,
        [pa.py_buffer(b"\2"), pa.py_buffer(np.array([0, 3, 4], np.int32).tobytes()), pa.py_buffer(b"xyza")],
    )
    hidden = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), texts)
    plain = pa.array([[None, "a"]], pa.list_(pa.string()))
    first, second = (row_bytes([each], [t.List(t.STRING)], 1).to_pylist() for each in (hidden, plain))
    assert first == second
