"""Change events byte for byte as Debezium's MongoDB connector writes them (tests/payloads/debezium-events.jsonl)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from bson.json_util import JSONMode, JSONOptions, dumps

from cdc_shared.documents import key_text

LEGACY = JSONOptions(json_mode=JSONMode.LEGACY, strict_number_long=True, tz_aware=True)

Op = Literal["c", "u", "r", "d"]


def event_key(document_id: Any) -> bytes:
    """The key of every event of the document with this `_id`."""
    return _compact({"id": key_text(document_id)}).encode()


def event_value(
    op: Op, document: Mapping[str, Any] | None, *, pipeline: str, database: str, collection: str, ts_ms: int
) -> bytes:
    """The envelope of one change; `document` is the whole document after it, None for a delete or a lost look-up."""
    snapshot = op == "r"
    envelope = {
        "before": None,
        "after": None if document is None else dumps(document, json_options=LEGACY),
        "updateDescription": None,
        "source": {
            "version": "3.6.1.Final",
            "connector": "mongodb",
            "name": pipeline,
            "ts_ms": ts_ms,
            "snapshot": "true" if snapshot else "false",
            "db": database,
            "sequence": None,
            "ts_us": ts_ms * 1_000,
            "ts_ns": ts_ms * 1_000_000,
            "collection": collection,
            "ord": -1 if snapshot else 1,
            "lsid": None,
            "txnNumber": None,
            "wallTime": None if snapshot else ts_ms,
        },
        "op": op,
        "ts_ms": ts_ms + 3,
        "transaction": None,
    }
    return _compact(envelope).encode()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
