"""One version of a table, read while others go on: its rows, and the offsets that it says they stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import obstore
import pyarrow as pa
from delta_reading import open_table
from deltalake import QueryBuilder

from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.documents import canonical_row, from_delta_schema
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store


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


class OffsetChain:
    """Follows a table's log and checks that every commit begins where the one before ended, in each partition.

    A gap is a loss, an overlap a batch that was applied twice, even where the rows came out the same.
    """

    def __init__(self, url: str, store: ObjectStoreSettings) -> None:
        self._store = open_store(url, store)
        self._ends: dict[str, int] = {}
        self._ids: set[str] = set()
        self._txns: dict[str, int] = {}
        self.version = -1

    def follow(self) -> int:
        """Check the entries since the last call; return how many commits there have been.

        To be called before log clean-up takes them away.
        """
        listed = (entry["path"] for page in obstore.list(self._store, "_delta_log/") for entry in page)
        for path in sorted(path for path in listed if re.fullmatch(r"_delta_log/\d{20}\.json", path)):
            version = int(path[-25:-5])
            if version <= self.version:
                continue
            assert version == self.version + 1, f"entry {self.version + 1} of the log is missing"
            self.version = version
            lines = bytes(obstore.get(self._store, path).bytes()).splitlines()
            for action in map(json.loads, lines):
                if "commitInfo" in action:
                    self._check_info(path, action["commitInfo"])
                elif "txn" in action:
                    self._check_txn(path, action["txn"])
        return self.version + 1

    def _check_txn(self, path: str, txn: Mapping[str, Any]) -> None:
        stood_at = self._txns.get(txn["appId"], -1)
        assert txn["version"] >= stood_at, f"{path}: {txn['appId']} falls from {stood_at} to {txn['version']}"
        self._txns[txn["appId"]] = txn["version"]

    def _check_info(self, path: str, info: Mapping[str, Any]) -> None:
        if "txnId" in info:  # what makes a copy-on-write table, or widens its schema, is of no batch
            assert info["txnId"] not in self._ids, f"{path} is of a batch that was committed before"
            self._ids.add(info["txnId"])
        for partition, (start, end) in info.get("cdcRanges", {}).items():  # delta-rs's MERGE can carry texts only
            stood_at = self._ends.get(partition, 0)
            assert start == stood_at, f"{path}: partition {partition} goes on at {start}, it stood at {stood_at}"
            self._ends[partition] = end


def check_offset_chain(url: str, store: ObjectStoreSettings) -> int:
    """Check the whole log with `OffsetChain`; return how many commits there are."""
    return OffsetChain(url, store).follow()
