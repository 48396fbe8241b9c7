"""Documents of several megabytes: how fast they come into the table, and that the writer's memory stays bounded."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import bson
import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64
from debezium_events import event_key, event_value
from delta_reading import canonical_rows_of, open_table, query_with_duckdb
from topic_pipeline import TopicPipeline
from writer_process import asleep

from cdc_shared.documents import canonical_document, document_text, key_text

pytestmark = [pytest.mark.performance, pytest.mark.timeout(600)]

MEGABYTE: Final = 1_000_000
DOCUMENT_BYTES: Final = 5 * MEGABYTE
DOCUMENTS: Final = 10
"""In each of two rounds, in the topic before the writer begins: more than fits into a batch."""
MIN_MEGABYTES_PER_S: Final = 1.0
MAX_PEAK_MEGABYTES: Final = 1_800
TIMEOUT_S: Final = 240.0


def test_documents_of_megabytes(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    pipeline = new_topic_pipeline()
    document = large_document(rng)
    megabytes = len(bson.encode(document)) / MEGABYTE
    text = document_text(bson.encode(document))
    rates, peaks = [], []
    for begin in (0, DOCUMENTS):
        with asleep(pipeline.writer):
            for n in range(begin, begin + DOCUMENTS):
                insert(pipeline, n, text)
            pipeline.items.flush()
        started = time.monotonic()
        pipeline.items.await_applied(TIMEOUT_S)
        rates.append(DOCUMENTS * megabytes / (time.monotonic() - started))
        peaks.append(peak_megabytes(pipeline))

    measured(f"documents of {megabytes:.1f} MB, from the topic into the table", rates[1], "MB/s")
    measured("the writer's peak of memory, first round", peaks[0], "MB")
    measured("the writer's peak of memory, after as many again", peaks[1], "MB")
    assert min(rates) > MIN_MEGABYTES_PER_S
    assert max(peaks) < MAX_PEAK_MEGABYTES
    check_table(pipeline, document)


def large_document(rng: random.Random) -> dict[str, Any]:
    """About `DOCUMENT_BYTES` of BSON: text, bytes, numbers, and many small objects; without `_id`."""
    share = DOCUMENT_BYTES // 10
    order = {"sku": "s-1234567", "quantity": 3, "price": Decimal128("19.99"), "at": DatetimeMS(1_700_000_000_000)}
    return {
        "text": "".join(rng.choices('abcdefgh ijklmnop "\\\n é日😀', k=share * 4 // 3)),
        "bytes": Binary(rng.randbytes(share * 4)),
        "longs": [Int64(rng.getrandbits(63)) for _ in range(share // 16)],
        "doubles": [rng.random() for _ in range(share // 16)],
        "orders": [order | {"quantity": n} for n in range(share * 2 // 90)],
    }


def insert(pipeline: TopicPipeline, n: int, text: str) -> None:
    """Send the document's insert with `_id` n."""
    envelope = event_value("c", {}, pipeline=pipeline.name, database=pipeline.name, collection="items", ts_ms=1)
    after = {"after": f'{{"_id": {n},{text[1:]}'}
    pipeline.items.send(event_key(n), json.dumps(json.loads(envelope) | after).encode(), changes_a_row=True)


def peak_megabytes(pipeline: TopicPipeline) -> float:
    """The most memory that the writer has held so far."""
    status = Path(f"/proc/{pipeline.writer.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MEGABYTE


def check_table(pipeline: TopicPipeline, document: dict[str, Any]) -> None:
    """Every row holds the same, and one of them the document."""
    url, store = pipeline.items.url, pipeline.stack.object_store
    columns = ", ".join(f'"{name}"' for name in document)
    query = f"SELECT count(*) AS rows, count(DISTINCT hash({columns}, _cdc_rescued)) AS contents FROM t"
    assert query_with_duckdb(url, store, query).to_pylist() == [{"rows": 2 * DOCUMENTS, "contents": 1}]
    table = open_table(url, store)
    assert table is not None
    row = canonical_rows_of(query_with_duckdb(url, store, "SELECT * FROM t WHERE _id = 7"), table.schema())
    assert row == {key_text(7): canonical_document({"_id": 7, **document})}
