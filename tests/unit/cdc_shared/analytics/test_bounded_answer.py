"""Answers for programs: whole up to their bounds, and it is told when they are not."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from cdc_shared.analytics.bounded_answer import (
    TABLES_METADATA,
    AnswerBounds,
    BoundedAnswer,
    BoundedFormat,
    write_bounded,
)
from cdc_shared.analytics.query_errors import QueryTooLarge

pytestmark = pytest.mark.unit

MANY_BYTES = 1024**2
TABLES: Mapping[str, int] = {"shop.shop.orders": 3}


def reader(*sizes: int) -> pa.RecordBatchReader:
    schema = pa.schema({"n": pa.int64()})
    start = 0
    batches = []
    for size in sizes:
        batches.append(pa.record_batch([pa.array(range(start, start + size), pa.int64())], schema=schema))
        start += size
    return pa.RecordBatchReader.from_batches(schema, batches)


def written(answer: pa.RecordBatchReader, form: BoundedFormat, bounds: AnswerBounds, path: Path) -> BoundedAnswer:
    with path.open("wb") as file:
        return write_bounded(answer, form, TABLES, bounds, file)


@pytest.mark.parametrize("form", BoundedFormat)
@pytest.mark.parametrize(
    ("sizes", "max_rows", "rows", "truncated"),
    [
        ((), 5, 0, False),
        ((0, 0), 5, 0, False),
        ((2, 3), 5, 5, False),
        ((2, 3, 0), 5, 5, False),
        ((2, 3, 1), 5, 5, True),
        ((7,), 5, 5, True),
        ((2, 0, 4), 1, 1, True),
    ],
)
def test_no_more_rows_than_asked_for_and_that_there_are_more_is_told(
    tmp_path: Path, form: BoundedFormat, sizes: tuple[int, ...], max_rows: int, rows: int, truncated: bool
) -> None:
    told = written(reader(*sizes), form, AnswerBounds(max_rows, MANY_BYTES), tmp_path / "a")

    assert told == BoundedAnswer(rows, truncated)
    if form is BoundedFormat.JSON:
        document = json.loads((tmp_path / "a").read_bytes())
        assert document["rows"] == [[n] for n in range(rows)]
        assert (document["row_count"], document["truncated"], document["tables"]) == (rows, truncated, TABLES)
    else:
        stream = pa.ipc.open_stream((tmp_path / "a").read_bytes())
        assert json.loads(stream.schema.metadata[TABLES_METADATA]) == TABLES
        assert stream.read_all().to_pydict() == {"n": list(range(rows))}


@pytest.mark.parametrize("form", BoundedFormat)
def test_an_answer_that_is_too_large_is_none(tmp_path: Path, form: BoundedFormat) -> None:
    with pytest.raises(QueryTooLarge, match="more than 1 MiB"):
        written(reader(*[100_000] * 10), form, AnswerBounds(10**9, MANY_BYTES), tmp_path / "a")


def test_values_keep_their_digits_and_columns_of_one_name_stay_two(tmp_path: Path) -> None:
    batch = pa.record_batch(
        [
            pa.array([2**63 - 1]),
            pa.array([Decimal("0.10")], pa.decimal128(38, 2)),
            pa.array([datetime(2026, 3, 1, 9, 30, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            pa.array([b"\x00\xff"]),
            pa.array([{"a": [None, float("nan")]}]),
        ],
        names=["x", "x", "at", "raw", "nested"],
    )
    answer = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    written(answer, BoundedFormat.JSON, AnswerBounds(10, MANY_BYTES), tmp_path / "a")

    text = (tmp_path / "a").read_text()
    assert '"rows":[[9223372036854775807,0.10,"2026-03-01T09:30:00Z","AP8=",{"a":[null,null]}]]' in text
    assert [each["name"] for each in json.loads(text)["columns"]] == ["x", "x", "at", "raw", "nested"]
