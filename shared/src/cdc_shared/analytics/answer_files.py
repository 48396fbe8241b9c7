"""An answer as a file, batch by batch: CSV, JSON (a row a line) or Parquet."""

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

_JSON = msgspec.json.Encoder(decimal_format="number")


class AnswerFormat(StrEnum):
    """How an answer is written."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def write_answer(answer: pa.RecordBatchReader, form: AnswerFormat, path: Path | None) -> None:
    """Write a whole answer to a file, or to standard output. A file is there whole or not at all.

    JSON is one object a line: times in ISO 8601, decimals as numbers with all their digits, binary values in base64,
    NaN and infinities as null. CSV has a heading; nested values and binary ones stand in it as in JSON.
    """
    if path is None:
        _WRITERS[form](answer, sys.stdout.buffer)
        sys.stdout.flush()
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            _WRITERS[form](answer, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_json(answer: pa.RecordBatchReader, file: BinaryIO) -> None:
    for batch in answer:
        file.write(_JSON.encode_lines(batch.to_pylist()))


def _write_parquet(answer: pa.RecordBatchReader, file: BinaryIO) -> None:
    with pq.ParquetWriter(file, answer.schema, compression="zstd") as writer:
        for batch in answer:
            writer.write_batch(batch)


def _write_csv(answer: pa.RecordBatchReader, file: BinaryIO) -> None:
    as_text = [i for i, field in enumerate(answer.schema) if pa.types.is_nested(field.type) or _is_binary(field.type)]
    schema = answer.schema
    for i in as_text:
        schema = schema.set(i, pa.field(schema.field(i).name, pa.string()))
    with pa.csv.CSVWriter(file, schema) as writer:
        for batch in answer:
            columns = batch.columns
            for i in as_text:
                values = columns[i].to_pylist()
                texts = [None if value is None else _JSON.encode(value).decode() for value in values]
                columns[i] = pa.array(texts, pa.string())
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


_WRITERS: dict[AnswerFormat, Callable[[pa.RecordBatchReader, BinaryIO], None]] = {
    AnswerFormat.CSV: _write_csv,
    AnswerFormat.JSON: _write_json,
    AnswerFormat.PARQUET: _write_parquet,
}
