"""Encoding of one data file."""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cdc_shared.delta.stats import file_stats

ROW_GROUP_ROWS: Final = 131_072
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


def _repetitive_columns(rows: pa.Table) -> list[str]:
    """Return the top-level text columns that repeat themselves: a dictionary of unique values only costs time."""
    sample = rows.slice(0, _SAMPLE_ROWS)
    return [
        field.name
        for field in rows.schema
        if pa.types.is_string(field.type)
        and pc.count_distinct(sample.column(field.name)).as_py() < max(1, sample.num_rows) * _DICTIONARY_PAYS_BELOW
    ]
