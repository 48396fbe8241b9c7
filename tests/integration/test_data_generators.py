"""The sample shop's commands on a real MongoDB, run as users and the supervisor run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from stack_endpoints import Stack
from waiting import wait_until

pytestmark = pytest.mark.integration

GENERATORS = Path(__file__).parents[1] / "load" / "data_generators"
EXIT_TIMEOUT_S = 30.0


@pytest.fixture
def database(stack: Stack) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](stack.mongodb_uri) as client:
        name = f"generators_{uuid.uuid4().hex[:10]}"
        yield client[name]
        client.drop_database(name)


def _start(script: str, stack: Stack, database: Database[dict[str, Any]], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(GENERATORS / script), "--database", database.name, *options]
    environment = {**os.environ, "MONGODB_URI": stack.mongodb_uri}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_seeding_again_adds_only_what_is_missing(stack: Stack, database: Database[dict[str, Any]]) -> None:
    def seed(orders: int) -> str:
        process = _start("mongodb_seeder.py", stack, database, "--customers", "20", "--orders", str(orders))
        output, _ = process.communicate(timeout=EXIT_TIMEOUT_S)
        assert process.returncode == 0, output
        return output

    seed(50)
    first = list(database["orders"].find().sort("_id"))
    again = seed(70)
    assert "inserted 0 customers and 20 orders" in again
    assert len(first) == 50
    assert list(database["orders"].find().sort("_id").limit(50)) == first
    assert database["customers"].count_documents({}) == 20


def test_the_generator_changes_an_empty_database_within_its_bound_and_stops_on_sigterm(
    stack: Stack, database: Database[dict[str, Any]]
) -> None:
    process = _start("change_generator.py", stack, database, "--rate", "200", "--max-orders", "100")
    try:
        wait_until(lambda: database["orders"].count_documents({}) >= 50, EXIT_TIMEOUT_S, "orders written")
        written_first = {order["_id"] for order in database["orders"].find({}, {"_id": 1})}
        wait_until(
            lambda: written_first - {order["_id"] for order in database["orders"].find({}, {"_id": 1})},
            EXIT_TIMEOUT_S,
            "a delete",
        )
        wait_until(lambda: database["orders"].count_documents({"status": "shipped"}), EXIT_TIMEOUT_S, "an update")
        assert database["orders"].count_documents({}) <= 100
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=EXIT_TIMEOUT_S)
    assert process.returncode == 0, output
    assert "stopped:" in output
