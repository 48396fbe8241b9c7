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
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient

pytestmark = pytest.mark.e2e

GONE_TIMEOUT_S = 15.0
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
    with ConnectClient(stack.connect_url) as connect:  # Connect forgets a deleted connector a moment later
        wait_until(lambda: connect.status(name) is None, GONE_TIMEOUT_S, f"connector {name} is gone")
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    wait_until(lambda: not _topics_of(admin, name), GONE_TIMEOUT_S, f"topics of {name} are gone")
    with MongoClient[dict[str, object]](stack.mongodb_uri) as client:
        assert name not in client.list_database_names()


def _topics_of(admin: AdminClient, name: str) -> list[str]:
    return [topic for topic in admin.list_topics(timeout=10).topics if name in topic]
