"""`make demo` shows equal answers and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient
from stack_endpoints import Stack

from cdc_shared.connect.connect_client import ConnectClient

pytestmark = pytest.mark.e2e

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"


def test_the_demo_ends_equal_and_cleans_up(stack: Stack) -> None:
    command = [sys.executable, str(DEMO), "--seconds", "12", "--rate", "20", "--orders", "100"]
    run = subprocess.run(command, text=True, capture_output=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Delta and MongoDB are equal" in run.stdout
    rows = re.findall(r"([0-9,]+) rows in Delta", run.stdout)
    assert rows, run.stdout
    assert rows[-1] != "0", "the live line stands still"
    found = re.search(r"seeding database (demo-[0-9a-f]{6})", run.stdout)
    assert found
    name = found[1]
    with ConnectClient(stack.connect_url) as connect:
        assert connect.status(name) is None
    topics = AdminClient({"bootstrap.servers": stack.kafka}).list_topics(timeout=10).topics
    assert [topic for topic in topics if name in topic] == []
    with MongoClient[dict[str, object]](stack.mongodb_uri) as client:
        assert name not in client.list_database_names()
