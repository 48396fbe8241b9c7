"""How much of a table a selective question reads, how long it takes, and how long MongoDB's own aggregation takes.

`QUERY_ROWS=10000000` makes the table larger (about 1.1 KB of JSON a row); `MONGODB_URI` may name another MongoDB than
the stack's for the comparison.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from bench.changes import ChangeBench
from bench.events import object_id
from bson import Decimal128
from mongo_pipeline import MongoPipeline
from shop_questions import lake_of
from stack_endpoints import Stack

from cdc_shared.analytics.lake import Lake
from cdc_shared.delta.log import DeltaLog
from cdc_shared.storage.object_store import delete_everything, open_store
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter

pytestmark = [pytest.mark.performance, pytest.mark.timeout(3600)]

ROWS = int(os.environ.get("QUERY_ROWS", "1_000_000"))
RUNS = 5
MAX_S = 2.0
MAX_BYTES_SHARE = 0.02
FULL_ROWS = 10_000_000
"""11 GB of JSON."""
ONE_FILE = 1.3
"""Of the average; what is read of the log comes on top."""
DOCUMENTS = 50_000
POINT_RATIO = 2.0
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

Measured = Callable[[str, float, str], None]


@pytest.fixture
def root(stack: Stack, tests_root: str) -> Iterator[str]:
    """`<root>/bench/bench/deletion_vectors` is the table."""
    root = f"{tests_root}/queried-{uuid.uuid4().hex[:8]}"
    yield root
    delete_everything(root, stack.object_store)


def bytes_read(plan: str) -> float:
    """What DuckDB has fetched from the object store for a plan that it has run."""
    found = re.search(r"in: ([\d.]+) (bytes|KiB|MiB|GiB)", plan)
    assert found, plan
    return float(found[1]) * _UNITS[found[2]]


def test_a_selective_question_reads_little_and_is_quick(
    stack: Stack, root: str, tmp_path: Path, rng: random.Random, measured: Measured
) -> None:
    bench = ChangeBench(
        f"{root}/bench/bench", stack.object_store, tmp_path, rng.randrange(2**32), [DeletionVectorWriter]
    )
    started = time.monotonic()
    for _ in bench.fill(ROWS):
        pass
    bench.measure(1)  # changes everywhere: deletion vectors on every file
    bench.close()
    print(f"{ROWS:,} rows in {time.monotonic() - started:.0f} s")
    table = "bench.bench.deletion_vectors"
    log = DeltaLog(open_store(f"{root}/bench/bench/deletion_vectors", stack.object_store))
    files = log.load().files.values()
    size = sum(file.size for file in files)
    measured("table queried, rows", ROWS, "rows")
    measured("table queried, data files", len(files), "files")
    measured("table queried, size on the store", size / 1024**2, "MB")

    # A question reads a row group at least. Of a table as large as the bar is meant for that is less than the share.
    allowed = MAX_BYTES_SHARE if ROWS >= FULL_ROWS else ONE_FILE / len(files)

    def between() -> str:
        first = rng.randrange(ROWS - ROWS // 200)
        return f"_id BETWEEN '{object_id(first)}' AND '{object_id(first + ROWS // 200)}'"

    questions = {
        "one document": lambda: f"SELECT * FROM {table} WHERE _id = '{object_id(rng.randrange(ROWS))}'",
        "half a percent, grouped": lambda: (
            f"SELECT status, count(*), sum(total), avg(score) FROM {table} WHERE {between()} GROUP BY ALL"
        ),
    }
    with Lake(stack.object_store, root) as lake:
        for name, ask in questions.items():
            took, shares = [], []
            for _ in range(RUNS):
                sql = ask()
                begun = time.monotonic()
                lake.query(sql)
                took.append(time.monotonic() - begun)
            for _ in range(RUNS):
                with Lake(stack.object_store, root) as fresh:  # nothing of the files is in its memory
                    shares.append(bytes_read(fresh.explain(ask())) / size)
            measured(f"{name}: median", median(took) * 1000, "ms")
            measured(f"{name}: bytes read", max(shares) * 100, "% of the table")
            assert median(took) < MAX_S, name
            assert max(shares) <= allowed, name


def test_questions_beside_the_source_itself(pipeline: MongoPipeline, rng: random.Random, measured: Measured) -> None:
    """On a collection without an index but `_id`'s, as analysts find them."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    orders = pipeline.db.client.get_database(pipeline.database)["orders"]
    for start in range(0, DOCUMENTS, 5_000):
        orders.insert_many(document(number, began, rng) for number in range(start, start + 5_000))
    pipeline.await_equal("orders", timeout_s=180)
    table = f'"{pipeline.name}"."{pipeline.database}".orders'
    number = rng.randrange(DOCUMENTS)
    group = {"$group": {"_id": "$status", "n": {"$sum": 1}, "total": {"$sum": "$total"}, "score": {"$avg": "$score"}}}
    with lake_of(pipeline) as lake:
        point = beside(
            lambda: list(orders.aggregate([{"$match": {"number": number}}])),
            lambda: lake.query(f"SELECT * FROM {table} WHERE number = {number}").to_pylist(),
        )
        grouped = beside(
            lambda: list(orders.aggregate([group])),
            lambda: lake.query(
                f"SELECT status, count(*), sum(total), avg(score) FROM {table} GROUP BY ALL"
            ).to_pylist(),
        )
        by_key = beside(
            lambda: list(orders.aggregate([{"$match": {"_id": number}}])),
            lambda: lake.query(f"SELECT * FROM {table} WHERE _id = {number}").to_pylist(),
        )
    for name, (source_s, lake_s) in (("a point filter", point), ("a group-by", grouped), ("by _id", by_key)):
        measured(f"{name}, {DOCUMENTS:,} documents: the source", source_s * 1000, "ms")
        measured(f"{name}, {DOCUMENTS:,} documents: DuckDB on the table", lake_s * 1000, "ms")
    assert point[1] <= POINT_RATIO * point[0]
    assert grouped[1] < grouped[0]


def document(number: int, began: datetime, rng: random.Random) -> dict[str, Any]:
    return {
        "_id": number,
        "number": number,
        "status": rng.choice(("new", "paid", "shipped", "delivered")),
        "total": Decimal128(f"{rng.randrange(100_000) / 100:.2f}"),
        "score": rng.random(),
        "at": began + timedelta(seconds=number),
        "address": {"city": rng.choice(("Oslo", "Lima", "Kyiv")), "street": f"{rng.randrange(1000)} Main St"},
        "items": [{"sku": f"s{rng.randrange(100)}", "n": rng.randrange(5)} for _ in range(3)],
        "note": "lorem ipsum dolor sit amet, consectetur adipiscing elit " * 4,
    }


def beside(source: Callable[[], Any], lake: Callable[[], Any]) -> tuple[float, float]:
    """The median time of each; they take turns, and both answer as many rows."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        counts = []
        for ask, took in zip((source, lake), times, strict=True):
            begun = time.monotonic()
            counts.append(len(ask()))
            took.append(time.monotonic() - begun)
        assert counts[0] == counts[1] > 0
    return median(times[0]), median(times[1])
