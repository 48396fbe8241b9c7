"""The task map tells the truth: every task is on it once, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TASK_MAP = ROOT / "docs" / "development" / "task-map.md"
LAST_TASK = 253

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split(" | ")]
    for line in TASK_MAP.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| T\d", line)
]


def test_every_task_is_listed_once_and_in_order() -> None:
    tasks = [row[0] for row in ROWS]
    assert len(tasks) == len(set(tasks))
    assert {int(re.sub(r"\D", "", task)) for task in tasks} == set(range(1, LAST_TASK + 1))


def test_every_task_says_where_it_is_done_or_when() -> None:
    assert [row[0] for row in ROWS if len(row) < 3 or not row[2]] == []


def test_every_named_file_and_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    missing = [
        f"{row[0]}: {name}"
        for row in ROWS
        for name in re.findall(r"`([^`]+)`", " ".join(row[2:]))
        if not (name.removeprefix("make ") in targets if name.startswith("make ") else (ROOT / name).exists())
    ]
    assert missing == []
