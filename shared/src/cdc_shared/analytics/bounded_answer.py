"""An answer as programs take it, no larger than allowed: one JSON document, or an Arrow stream."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedWriter
from typing import Final

import msgspec
import pyarrow as pa

from cdc_shared.analytics.query_errors import QueryTooLarge

TABLES_METADATA: Final = b"cdc.tables"
"""In an Arrow stream's schema: the tables that were read, with their versions, as JSON."""
_JSON: Final = msgspec.json.Encoder(decimal_format="number")


class BoundedFormat(StrEnum):
    """`json`: `{"columns": [{"name", "type"}], "rows": [[…]], "row_count", "truncated", "tables": {name: version}}`,
    with times in ISO 8601, decimals and whole numbers with all their digits, binary values in base64, NaN and
    infinities as null. `arrow`: the IPC stream, which keeps every value as it is."""

    JSON = "json"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class AnswerBounds:
    """More rows than `max_rows` are cut off, and that is told; an answer of more than `max_bytes` is none."""

    max_rows: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class BoundedAnswer:
    """What was written."""

    rows: int
    truncated: bool


def write_bounded(
    answer: pa.RecordBatchReader,
    form: BoundedFormat,
    tables: Mapping[str, int],
    bounds: AnswerBounds,
    file: BufferedWriter,
) -> BoundedAnswer:
    """Write up to `max_rows` of an answer. `tables`: those that it was read from, by name, with their versions.

    Raises `QueryTooLarge`; the file is of no use then.
    """
    batches = _Cut(answer, bounds.max_rows)

    def check() -> None:
        if file.tell() > bounds.max_bytes:
            raise QueryTooLarge(
                f"the answer has more than {bounds.max_bytes // 1024**2} MiB: ask for fewer columns, or fewer rows "
                "(max_rows), or aggregate"
            )

    _WRITERS[form](batches, answer.schema, tables, file, check)
    return BoundedAnswer(batches.rows, batches.truncated)


class _Cut:
    """The first rows of an answer; no more is worked out than tells whether there are further ones."""

    def __init__(self, answer: pa.RecordBatchReader, max_rows: int) -> None:
        self._answer = answer
        self._max_rows = max_rows
        self.rows = 0
        self.truncated = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._answer:
            room = self._max_rows - self.rows
            self.truncated = batch.num_rows > room
            taken = batch.slice(0, room)
            self.rows += taken.num_rows
            if taken.num_rows:
                yield taken
            if self.truncated:
                return


def _write_json(
    batches: _Cut, schema: pa.Schema, tables: Mapping[str, int], file: BufferedWriter, check: Callable[[], None]
) -> None:
    columns = [{"name": field.name, "type": str(field.type)} for field in schema]
    file.write(b'{"columns":' + _JSON.encode(columns) + b',"rows":[')
    separator = b""
    for batch in batches:
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        file.write(separator + _JSON.encode(list(rows))[1:-1])
        separator = b","
        check()
    end = {"row_count": batches.rows, "truncated": batches.truncated, "tables": dict(tables)}
    file.write(b"]," + _JSON.encode(end)[1:] + b"\n")


def _write_arrow(
    batches: _Cut, schema: pa.Schema, tables: Mapping[str, int], file: BufferedWriter, check: Callable[[], None]
) -> None:
    told = schema.with_metadata({TABLES_METADATA: _JSON.encode(dict(tables))})
    with pa.ipc.new_stream(file, told) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(told.metadata))
            check()


_WRITERS: Final[dict[BoundedFormat, Callable[..., None]]] = {
    BoundedFormat.JSON: _write_json,
    BoundedFormat.ARROW: _write_arrow,
}
