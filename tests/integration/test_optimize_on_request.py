"""The command that asks, the writer that does it, and the script that asks every week, on the running stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from delta_reading import open_table
from mongo_pipeline import MongoPipeline
from waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SCRIPT = Path(__file__).parents[2] / "scripts" / "maintenance" / "optimize-deltalake.py"
COMMAND_TIMEOUT_S = 120


def run(pipeline: MongoPipeline, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment(pipeline)},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


def environment(pipeline: MongoPipeline) -> dict[str, str]:
    return {**pipeline.stack.writer_environment, "CDC_PIPELINES_TOPIC": pipeline.specs_topic}


def files_of(pipeline: MongoPipeline) -> int:
    table = open_table(pipeline.table_url("items"), pipeline.stack.object_store)
    assert table is not None
    return len(table.file_uris())


def fill(pipeline: MongoPipeline) -> None:
    """A table of four files: too few for the writer to put them together by itself."""
    for start in range(0, 40, 10):
        pipeline.db["items"].insert_many([{"_id": n, "n": n} for n in range(start, start + 10)])
        pipeline.await_equal("items")
    assert files_of(pipeline) == 4


def test_the_command_asks_and_tells_what_was_saved(pipeline: MongoPipeline) -> None:
    fill(pipeline)
    command = (sys.executable, "-m", "delta_writer", "optimize", pipeline.name)
    shown = run(pipeline, *command, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "4 data files" in shown.stdout
    assert "nothing was asked for" in shown.stdout
    assert files_of(pipeline) == 4

    done = run(pipeline, *command)
    assert done.returncode == 0, done.stderr
    assert "4 files became 1" in done.stdout
    assert files_of(pipeline) == 1
    pipeline.db["items"].insert_one({"_id": 99})
    pipeline.await_equal("items")


def test_the_script_asks_all_pipelines_and_waits_for_its_time(pipeline: MongoPipeline) -> None:
    fill(pipeline)
    done = run(pipeline, sys.executable, str(SCRIPT), "--now")
    assert done.returncode == 0, done.stderr
    assert "4 files became 1" in done.stdout
    pipeline.await_equal("items")

    unknown = run(pipeline, sys.executable, str(SCRIPT), "--now", "--pipeline", "nobodys")
    assert unknown.returncode == 1
    assert f"no pipeline nobodys; there are: {pipeline.name}" in unknown.stderr
    wrong = run(pipeline, sys.executable, str(SCRIPT), "--cron", "61 * * * *")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")

    by_the_clock = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--cron", "* * * * *", "--dry-run"],
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment(pipeline)},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert by_the_clock.stdout is not None
    try:
        for line in by_the_clock.stdout:  # within a minute
            lines.append(line)
            if "nothing was asked for" in line:
                break
        by_the_clock.send_signal(signal.SIGTERM)
        wait_until(lambda: by_the_clock.poll() is not None, 10, "the script ends")
    finally:
        by_the_clock.kill()
    assert "next at " in lines[0]
    assert "1 data files" in "".join(lines)
    assert by_the_clock.returncode == 0
