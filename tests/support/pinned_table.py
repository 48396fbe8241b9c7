"""One version of a table, read while others go on: its rows, and the offsets that it says they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import obstore
import pyarrow as pa
from delta_reading import open_table
from deltalake import QueryBuilder

from cdc_shared.documents import canonical_row, from_delta_schema
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.writer.offsets import ChangeTopic, app_id


@dataclass(frozen=True, slots=True)
class PinnedTable:
    """`offsets`: partition → the next offset to read. `rows`: `_cdc_key` → the canonical form of the document."""

    version: int
    offsets: Mapping[int, int]
    rows: Mapping[str, bytes]


def read_pinned(url: str, store: ObjectStoreSettings, topic: ChangeTopic) -> PinnedTable:
    """Read the newest version; version -1, without rows, when there is no table.

    Raises AssertionError when a key has more than one row.
    """
    table = open_table(url, store)
    if table is None:
        return PinnedTable(-1, {}, {})
    schema = from_delta_schema(table.schema().to_json())
    stands = {p: table.transaction_version(app_id(topic, p)) or 0 for p in range(topic.partitions)}
    found = pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()).to_pylist()
    rows = {row["_cdc_key"]: canonical_row(row, schema, row["_cdc_rescued"]) for row in found}
    assert len(rows) == len(found), f"version {table.version()} of {url} has {len(found)} rows of {len(rows)} keys"
    return PinnedTable(table.version(), stands, rows)


def check_offset_chain(url: str, store: ObjectStoreSettings) -> int:
    """Check that every commit begins where the one before ended, in each partition; return how many commits there are.

    A gap is a loss, an overlap a batch that was applied twice, even where the rows came out the same.
    """
    bucket = open_store(url, store)
    listed = (entry["path"] for page in obstore.list(bucket, "_delta_log/") for entry in page)
    entries = sorted(path for path in listed if path.endswith(".json"))
    ends: dict[str, int] = {}
    ids: set[str] = set()
    for path in entries:
        lines = bytes(obstore.get(bucket, path).bytes()).splitlines()
        infos = [action["commitInfo"] for action in map(json.loads, lines) if "commitInfo" in action]
        for info in infos:
            assert info["txnId"] not in ids, f"{path} is of a batch that was committed before"
            ids.add(info["txnId"])
            for partition, (start, end) in info["cdcRanges"].items():
                stood_at = ends.get(partition, 0)
                assert start == stood_at, f"{path}: partition {partition} goes on at {start}, it stood at {stood_at}"
                ends[partition] = end
    return len(entries)
