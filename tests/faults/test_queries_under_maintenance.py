"""Queries while a table is written, compacted and vacuumed: never an error, never half a batch.

Each batch moves amounts between accounts, so their number and their sum are the same in every version, and in none of
the states between two files of a batch.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from maintained_table import LABELS, Change, MaintainedTable
from stack_endpoints import Stack

from cdc_shared.analytics.bounded_answer import BoundedFormat
from cdc_shared.analytics.lake import Lake
from cdc_shared.analytics.query_process import QueryRequest, run_request
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import delete_everything, table_url
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.retention import Retention

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

RUN_S = 15.0
MAX_RUN_S = 150.0
"""On a machine that does much else, until there was enough of everything."""
ACCOUNTS = 400
MOVES = 10
START = 1_000
POLICY = MaintenancePolicy(
    Retention(versions_s=2.0, upload_grace_s=2.0, readers_grace_s=10.0),
    target_bytes=40_000,
    cpu_share=1.0,
    bytes_per_s=1e9,
    vacuum_every_s=1.0,
    first_vacuum_s=1.0,
    commits_a_checkpoint=10,
)
MIN_COMPACTIONS = 10
MIN_DELETED_FILES = 30
MIN_QUERIES = 10
"""Of each kind."""
TABLE = ".".join(LABELS)
QUESTIONS = {
    "a sum": f"SELECT count(*) AS n, sum(amount)::BIGINT AS total FROM {TABLE}",
    "a join": f"SELECT count(*) AS n, sum(b.amount)::BIGINT AS total FROM {TABLE} a JOIN {TABLE} b ON a._id = b._id",
    "two scans": f"SELECT (SELECT count(*) FROM {TABLE}) AS n, sum(amount)::BIGINT AS total FROM {TABLE}",
}
THROUGH_THE_API = "through the API's sandbox"


@pytest.fixture
def root(stack: Stack, tests_root: str) -> Iterator[str]:
    """A root with nothing else under it."""
    root = f"{tests_root}/queried-{uuid.uuid4().hex[:8]}"
    yield root
    delete_everything(root, stack.object_store)


@dataclass
class Bank:
    """What the accounts hold; `moves` are the next batch."""

    rng: random.Random
    amounts: list[int] = field(default_factory=lambda: [START] * ACCOUNTS)

    def moves(self) -> list[Change]:
        touched = self.rng.sample(range(ACCOUNTS), 2 * MOVES)
        for giver, taker in zip(touched[:MOVES], touched[MOVES:], strict=True):
            amount = self.rng.randrange(50)
            self.amounts[giver] -= amount
            self.amounts[taker] += amount
        return [self.change(account) for account in touched]

    def change(self, account: int) -> Change:
        return account, {"amount": self.amounts[account], "owner": f"owner {account % 17}"}


def test_never_an_error_and_never_half_a_batch(
    stack: Stack, root: str, tmp_path: Path, rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    stores = stack.object_store.model_copy(update={"delta_root": root})
    bank, over, asked = Bank(rng), threading.Event(), Counter[str]()
    url = table_url(root, *LABELS)
    with MaintainedTable(url, stores, tmp_path / "cache", POLICY) as table, ThreadPoolExecutor(2) as pool:
        table.apply([bank.change(account) for account in range(ACCOUNTS)])
        table.writer.set_properties({"delta.deletedFileRetentionDuration": "interval 5 seconds"})

        def enough() -> bool:
            return (
                table.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.DONE) >= MIN_COMPACTIONS
                and deleted_files(table) >= MIN_DELETED_FILES
                and all(asked[name] >= MIN_QUERIES for name in (*QUESTIONS, THROUGH_THE_API))
            )

        beside = [
            pool.submit(ask_by_name, stores, root, over, asked),
            pool.submit(ask_through_the_api, stores, tmp_path, over, asked),
        ]
        try:
            started = time.monotonic()
            while (time.monotonic() < started + RUN_S or not enough()) and not any(map(Future.done, beside)):
                assert time.monotonic() < started + MAX_RUN_S, (
                    f"too little of something: {asked}, {deleted_files(table)}"
                )
                table.apply(bank.moves())
        finally:
            over.set()
        for each in beside:
            each.result()
        compactions = table.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.DONE)
        print(f"{table.writer.version + 1} commits, {compactions} compactions, {deleted_files(table)} files vacuumed")
    measured("queries beside writes, compaction and vacuum", sum(asked.values()), "queries")
    measured("commits meanwhile", table.writer.version + 1, "commits")


def deleted_files(table: MaintainedTable) -> int:
    counts = table.metrics.maintenance_deleted_files
    return int(sum(counts.labels(*LABELS, kind)._value.get() for kind in ("data", "deletion_vector")))


def check(name: str, rows: list[Any]) -> None:
    assert [tuple(row.values()) for row in rows] == [(ACCOUNTS, ACCOUNTS * START)], name


def ask_by_name(stores: ObjectStoreSettings, root: str, over: threading.Event, asked: Counter[str]) -> None:
    """As `make query` and notebooks do."""
    with Lake(stores, root) as lake:
        while not over.is_set():
            for name, sql in QUESTIONS.items():
                check(name, lake.query(sql).to_pylist())
                asked[name] += 1


def ask_through_the_api(
    stores: ObjectStoreSettings, directory: Path, over: threading.Event, asked: Counter[str]
) -> None:
    """What a query's process does, in this one."""
    values = {name: getattr(value, "get_secret_value", lambda value=value: value)() for name, value in stores}
    while not over.is_set():
        request = QueryRequest(
            sql=f"SELECT count(*) = {ACCOUNTS} AND sum(amount) = {ACCOUNTS * START} AS whole FROM {TABLE}",
            as_of=None,
            format=BoundedFormat.JSON,
            stores=values,
            pipelines=[LABELS[0]],
            directory=str(directory),
            memory_mb=256,
            threads=1,
            timeout_s=30,
            max_rows=1,
            max_bytes=10_000,
        )
        run_request(request)
        assert b'"rows":[[true]]' in (directory / "answer").read_bytes()
        asked[THROUGH_THE_API] += 1
