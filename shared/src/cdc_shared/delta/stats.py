"""File statistics of a data file, from its Parquet footer (Delta protocol: "Per-file Statistics").

Readers skip files by them, so a bound may be too wide, never too narrow. What JSON or a footer cannot say exactly is
left out: floats of a file that holds NaN or an infinity, decimals, binary, booleans.
"""

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cdc_shared.delta.actions import AddFile

INDEXED_COLUMNS: Final = 32
STRING_PREFIX_CHARS: Final = 32
_LOOSE: Final = '"tightBounds":false'
_MAX_CODE_POINT: Final = "\U0010ffff"


class _FileStats(msgspec.Struct, rename="camel"):
    num_records: int | None = None


_STATS: Final = msgspec.json.Decoder(_FileStats)


def file_stats(table: pa.Table, footer: pq.FileMetaData) -> str:
    """Return the `stats` JSON of a data file written from `table` and having `footer`.

    Covers the first `INDEXED_COLUMNS` leaf columns that are not inside a list.
    """
    return footer_stats(table.schema, footer, lambda path: has_nan(table, path))


def footer_stats(schema: pa.Schema, footer: pq.FileMetaData, holds_nan: Callable[[list[str]], bool]) -> str:
    """Return what `file_stats` does, of rows that are not at hand: `holds_nan` tells of a float column by its path."""
    minimums: dict[str, Any] = {}
    maximums: dict[str, Any] = {}
    null_counts: dict[str, Any] = {}
    for index, path, kind in _indexed_leaves(schema, footer):
        groups = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        chunks = [group for group in groups if group is not None and group.null_count is not None]
        if len(chunks) < len(groups):
            continue
        _put(null_counts, path, sum(chunk.null_count or 0 for chunk in chunks))
        # Arrow leaves out bounds above 4 KiB: then nothing is known of that row group, and so of the file.
        bounded = [chunk for chunk in chunks if chunk.num_values]
        known = all(chunk.has_min_max for chunk in bounded)
        bounds = _bounds([(chunk.min, chunk.max) for chunk in bounded], kind) if known else None
        if bounds is not None and not (pa.types.is_floating(kind) and holds_nan(path)):
            _put(minimums, path, bounds[0])
            _put(maximums, path, bounds[1])
    stats = {"numRecords": footer.num_rows, "minValues": minimums, "maxValues": maximums, "nullCount": null_counts}
    return json.dumps(stats, ensure_ascii=False, separators=(",", ":"))


def float_columns(schema: pa.Schema) -> list[list[str]]:
    """Return the paths of the float columns that are not inside a list: those that may hold NaN."""
    return [path for field in schema for path, kind in _leaves([field.name], field.type) if pa.types.is_floating(kind)]


def with_loose_bounds(stats: str | None) -> str | None:
    """Return the stats of a file that now has a deletion vector: counts stay physical, bounds are no longer tight."""
    if stats is None or _LOOSE in stats:
        return stats
    return json.dumps(json.loads(stats) | {"tightBounds": False}, ensure_ascii=False, separators=(",", ":"))


def physical_rows(file: AddFile) -> int | None:
    """Return how many rows the data file has, deleted ones included; None when its stats, not ours then, do not say."""
    return _STATS.decode(file.stats or "{}").num_records


def with_row_count(stats: str | None, rows: int) -> str:
    """Return the stats of a file with the count of its rows, deleted ones included."""
    return json.dumps(json.loads(stats or "{}") | {"numRecords": rows}, ensure_ascii=False, separators=(",", ":"))


def has_nan(table: pa.Table, path: list[str]) -> bool:
    """Tell whether the float column under the path holds NaN."""
    column = table.column(path[0])
    if len(path) > 1:
        column = pc.struct_field(column, path[1:])
    return bool(pc.any(pc.is_nan(column)).as_py())


def truncated_maximum(text: str) -> str:
    """Return a string of about `STRING_PREFIX_CHARS` that sorts after every string with the same prefix."""
    if len(text) <= STRING_PREFIX_CHARS:
        return text
    end = STRING_PREFIX_CHARS
    while end < len(text) and text[end] == _MAX_CODE_POINT:
        end += 1
    return text[:end] + _MAX_CODE_POINT


def _indexed_leaves(schema: pa.Schema, footer: pq.FileMetaData) -> Iterator[tuple[int, list[str], pa.DataType]]:
    """Yield footer position, column path and Arrow type of the leaf columns that get statistics."""
    leaves = ((index, _leaf(schema, footer.schema.column(index).path)) for index in range(footer.num_columns))
    outside_lists = ((index, leaf[0], leaf[1]) for index, leaf in leaves if leaf is not None)
    return islice(outside_lists, INDEXED_COLUMNS)


def _leaf(schema: pa.Schema, parquet_path: str) -> tuple[list[str], pa.DataType] | None:
    """Return the column path and Arrow type of a leaf, or None when it lies inside a list.

    Parquet joins the path with dots; no column name of ours holds one (`documents.types.column_name`).
    """
    path = parquet_path.split(".")
    kind = schema.field(path[0]).type
    for name in path[1:]:
        if not pa.types.is_struct(kind):
            return None
        kind = kind.field(name).type
    return path, kind


def _leaves(path: list[str], kind: pa.DataType) -> Iterator[tuple[list[str], pa.DataType]]:
    if not pa.types.is_struct(kind):
        yield path, kind
        return
    for member in kind:
        yield from _leaves([*path, member.name], member.type)


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _bounds(groups: list[tuple[Any, Any]], kind: pa.DataType) -> tuple[Any, Any] | None:
    """Return the lowest minimum and the highest maximum of the row groups as JSON values, if they can be said."""
    types = pa.types
    sayable = types.is_integer(kind) or types.is_floating(kind) or types.is_string(kind) or types.is_timestamp(kind)
    if not sayable or not groups:
        return None
    low, high = min(group[0] for group in groups), max(group[1] for group in groups)
    if types.is_floating(kind) and (math.isinf(low) or math.isinf(high)):
        return None
    if types.is_string(kind):
        return low[:STRING_PREFIX_CHARS], truncated_maximum(high)
    if types.is_timestamp(kind):
        return _timestamp(low), _timestamp(high)
    return low, high


def _timestamp(value: datetime) -> str:
    """Milliseconds, truncated, as the protocol says; readers widen the upper bound by one millisecond themselves."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
