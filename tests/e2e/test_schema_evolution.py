"""Documents in MongoDB change their shape mid-stream: the table has every value seconds later, nothing is restarted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from mongo_pipeline import MongoPipeline
from pymongo import UpdateOne

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.e2e

DOCUMENTS = 1_000
ARRIVAL_LIMIT_S = 60.0


def test_a_thousand_documents_gain_a_field_change_a_type_and_nest_deeper(
    pipeline: MongoPipeline, measured: Callable[[str, float, str], None]
) -> None:
    orders, writer = pipeline.db["orders"], pipeline.writer
    orders.insert_many({"_id": n, "total": n, "lines": [{"sku": "a"}], "note": None} for n in range(DOCUMENTS))
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)
    pid = writer.pid

    def evolve(change: Callable[[int], Mapping[str, Any]]) -> None:
        orders.bulk_write([UpdateOne({"_id": n}, change(n)) for n in range(DOCUMENTS)], ordered=False)

    began = time.monotonic()
    evolve(lambda n: {"$set": {"customer": {"name": f"c {n}"}}})
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)
    measured("1,000 documents gained a field, in MongoDB and in the table", time.monotonic() - began, "s")
    evolve(lambda n: {"$set": {"total": str(n) if n % 3 else n + 0.25}})
    evolve(lambda n: {"$set": {"customer.address": {"zip": f"{n:05}", "since": datetime(1969, 7, 20, tzinfo=UTC)}}})
    evolve(lambda n: {"$set": {"note": {"de": "neu"}}, "$push": {"lines": {"sku": "b", "tax": {"percent": 19}}}})
    evolve(lambda n: {"$unset": {"customer.name": 1}, "$set": {"customer.address.geo": {"lat": n / 8}}})
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)

    assert (writer.pid, writer.alive) == (pid, True)
    told = list(writer.log_events())
    assert sum(each.get("event") == "pipeline starting" for each in told) == 1
    assert writer.pipeline_state(pipeline.name) == ("running", None)
    with ConnectClient(pipeline.stack.connect_url) as connect:
        status = connect.status(pipeline.name)
        assert status is not None
        assert (status.running, status.failure) == (True, None)

    changes = read_schema_history(open_store(pipeline.table_url("orders"), pipeline.stack.object_store))
    assert [change.version for change in changes] == list(range(1, len(changes) + 1))
    shown = {each.path: each.event for change in changes for each in change.fields if each.change == "added"}
    for path in (
        "/total", "/customer", "/customer/name", "/customer/address/zip", "/customer/address/since",
        "/customer/address/geo/lat", "/note", "/note/de", "/lines/*/sku", "/lines/*/tax/percent",
    ):  # fmt: skip
        event = shown[path]
        assert event is not None, path
        assert event.topic == pipeline.topic("orders")
    in_order = [shown[f"/{path}"] for path in ("total", "customer", "customer/address", "note", "customer/address/geo")]
    offsets = [event.offset for event in in_order if event is not None]
    assert offsets == sorted(offsets)
