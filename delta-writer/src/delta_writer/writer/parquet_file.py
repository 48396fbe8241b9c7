"""Encoding of one data file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cdc_shared.delta.stats import file_stats, float_columns, footer_stats, has_nan

ROW_GROUP_ROWS: Final = 131_072
ROW_GROUP_BYTES: Final = 64 * 1024 * 1024
"""Of a file that is written in a stream: the decoded rows of one group are what it holds in memory."""
ZSTD_LEVEL: Final = 1
_SAMPLE_ROWS: Final = 1024
_DICTIONARY_PAYS_BELOW: Final = 0.5


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file in memory: its bytes and its Delta `stats` (JSON text)."""

    body: pa.Buffer
    stats: str


def encode_data_file(rows: pa.Table) -> DataFile:
    """Encode the rows, in their order, as one Parquet file (zstd, dictionaries where they pay)."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=_repetitive_columns(rows),  # type: ignore[arg-type]  # its stub knows only bool
        store_schema=False,
    )
    body = sink.getvalue()
    return DataFile(body, file_stats(rows, pq.read_metadata(pa.BufferReader(body))))


class DataFileStream:
    """A Parquet file of any length on the local disk, as `encode_data_file` makes it, of rows that come in pieces."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._may_hold_nan = float_columns(schema)
        self._nan: list[list[str]] = []

    def write(self, rows: pa.Table) -> None:
        """Append rows, which have exactly the schema."""
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._write_group()

    def finish(self) -> str:
        """Write what waits and the footer; return the file's Delta `stats` (JSON text). To be called once, last."""
        if self._waiting or self._writer is None:
            self._write_group()
        if self._writer is not None:
            self._writer.close()
        return footer_stats(self._schema, pq.read_metadata(self._path), self._nan.__contains__)

    def _write_group(self) -> None:
        rows = pa.concat_tables([self._schema.empty_table(), *self._waiting])
        self._waiting = []
        self._waiting_rows = self._waiting_bytes = 0
        for path in [path for path in self._may_hold_nan if has_nan(rows, path)]:
            self._may_hold_nan.remove(path)
            self._nan.append(path)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path,
                self._schema,
                compression="zstd",
                compression_level=ZSTD_LEVEL,
                use_dictionary=_repetitive_columns(rows),  # type: ignore[arg-type]  # its stub knows only bool
                store_schema=False,
            )
        self._writer.write_table(rows, row_group_size=max(1, len(rows)))


def _repetitive_columns(rows: pa.Table) -> list[str]:
    """Return the top-level text columns that repeat themselves: a dictionary of unique values only costs time."""
    sample = rows.slice(0, _SAMPLE_ROWS)
    return [
        field.name
        for field in rows.schema
        if pa.types.is_string(field.type)
        and pc.count_distinct(sample.column(field.name)).as_py() < max(1, sample.num_rows) * _DICTIONARY_PAYS_BELOW
    ]
