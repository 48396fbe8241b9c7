"""The reconciliation service as a process: a job from Postgres, its repair once that is approved, and the command."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_database import TrialDatabase
from mongo_pipeline import MongoPipeline
from people import document
from reconciling import MASK_KEY, Reconciling
from stack_endpoints import Stack
from table_damage import HARMLESS, Harm
from waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

DOCUMENTS = 500
EACH = 3
COLLECTION = "people"
READY_TIMEOUT_S = 30.0
JOB_TIMEOUT_S = 60.0
STOPS_WITHIN_S = 15.0


@pytest.fixture
def people(new_pipeline: Callable[..., MongoPipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reconciling:
    people = Reconciling(new_pipeline(start=False), COLLECTION, tmp_path / "runs", monkeypatch)
    people.start()
    people.pipeline.db[COLLECTION].insert_many(map(document, range(DOCUMENTS)))
    people.await_rows(DOCUMENTS)
    return people


@pytest.fixture
def environment(people: Reconciling, database: TrialDatabase, tmp_path: Path) -> dict[str, str]:
    pipeline = people.pipeline
    return {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
        **pipeline.stack.writer_environment,
        **MASK_KEY,
        "POSTGRES_DSN": database.dsn,
        "CDC_PIPELINES_TOPIC": pipeline.specs_topic,
        "RECONCILIATION_WORK_DIR": str(tmp_path / "work"),
        "RECONCILIATION_INSTANCE_ID": "trial",
    }


SMALL_CHUNKS = """
import sys
from reconciliation.__main__ import main
from reconciliation.sources import chunks
chunks.plan_chunks.__defaults__ = (25,)
main()
"""
"""The service, with chunks of a size that makes 20 of them of what a test has time for."""


@contextmanager
def process_of(
    environment: Mapping[str, str], log: Path, program: tuple[str, ...] = ("-m", "reconciliation")
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The URL of the service, which is ready, and its process; nothing of it is left at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as written:
        process = subprocess.Popen(
            [sys.executable, *program, "serve"],
            env={**environment, "RECONCILIATION_HTTP_PORT": str(port)},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: process.poll() is not None or _is_ready(url), READY_TIMEOUT_S, "the service is ready")
        assert process.poll() is None, log.read_text()
        yield url, process
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(
    environment: Mapping[str, str], log: Path, program: tuple[str, ...] = ("-m", "reconciliation")
) -> Iterator[str]:
    """The URL of the service, which is ready; at the end it has stopped, of itself and in time."""
    with process_of(environment, log, program) as (url, process):
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOPS_WITHIN_S) == 0, log.read_text()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", trust_env=False, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def one(database: TrialDatabase, query: str, *arguments: Any) -> Any:
    return asyncio.run(database.fetch_value(query, *arguments))


def command(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciliation", "reconcile", *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=JOB_TIMEOUT_S,
        check=False,
    )


def test_a_job_its_repair_and_the_command(
    people: Reconciling, database: TrialDatabase, environment: dict[str, str], rng: random.Random, tmp_path: Path
) -> None:
    pipeline, log = people.pipeline.name, tmp_path / "service.log"
    people.stop_writer()
    done = people.damage(rng, dict.fromkeys(Harm, EACH), range(DOCUMENTS, DOCUMENTS + EACH))
    people.start_writer()
    damaged = sum(harm not in HARMLESS for harm in done.values())

    shown = command(environment, pipeline, COLLECTION)
    assert shown.returncode == 1, shown.stderr
    assert f"{COLLECTION}: {damaged} keys are wrong" in shown.stdout
    assert "scanning source" in shown.stderr

    with serving(environment, log) as url:
        job = one(
            database,
            "INSERT INTO reconciliation_jobs (pipeline, mode, options, requested_by) "
            "VALUES ($1, 'full', $2::text::jsonb, 'ada') RETURNING id",
            pipeline,
            json.dumps({"repair": True}),
        )
        state = "SELECT state FROM reconciliation_jobs WHERE id = $1"
        wait_until(lambda: one(database, state, job) in ("completed", "failed"), JOB_TIMEOUT_S, "the job is over")
        assert one(database, "SELECT outcome FROM reconciliation_jobs WHERE id = $1", job) == "differences"
        found = (
            "SELECT count(*) FROM reconciliation_differences d JOIN reconciliation_runs r ON r.id = d.run_id "
            "WHERE r.job_id = $1"
        )
        assert one(database, found, job) == damaged
        repair = "SELECT {} FROM reconciliation_repairs"
        wait_until(lambda: one(database, repair.format("state")) == "proposed", JOB_TIMEOUT_S, "a repair is proposed")
        asyncio.run(database.execute("UPDATE reconciliation_repairs SET state = 'approved', decided_by = 'grace'"))
        wait_until(
            lambda: one(database, repair.format("state")) in ("done", "failed"), JOB_TIMEOUT_S, "the repair is over"
        )
        assert one(database, repair.format("error")) is None
        progress = json.loads(one(database, repair.format("progress")))
        assert (progress["asked"], progress["applied"]) == (damaged, damaged)
        assert progress["verification"] == {"outcome": "equal", "differences": {}}
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        assert f'reconciliation_runs_total{{outcome="differences",pipeline="{pipeline}"}} 1.0' in metrics

    clean = command(environment, pipeline)
    assert clean.returncode == 0, clean.stderr
    assert f"{COLLECTION}: The table is right as of" in clean.stdout
    through = one(database, "SELECT verified_through IS NOT NULL FROM reconciliation_verifications")
    assert through is True
    told = log.read_text() + shown.stdout + shown.stderr + clean.stdout
    assert "@example.org" not in told
    assert MASK_KEY["TRIAL_MASK_KEY"] not in told
    assert not list((tmp_path / "work").glob("*")), "nothing is left of runs that are over"


def test_killed_at_half_it_goes_on_and_reads_no_chunk_again(
    people: Reconciling, database: TrialDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    """The process is killed; the next one finishes the job with the parts that the first has left as they are."""
    log, program = tmp_path / "service.log", ("-c", SMALL_CHUNKS)

    def parts() -> dict[str, tuple[int, int]]:
        found = {}
        for path in (tmp_path / "work").glob("*/s*/*.parquet"):
            with suppress(FileNotFoundError):  # the run is over
                found[f"{path.parent.name}/{path.name}"] = (path.stat().st_ino, path.stat().st_mtime_ns)
        return found

    job = one(
        database,
        "INSERT INTO reconciliation_jobs (pipeline, mode, options, requested_by) "
        "VALUES ($1, 'full', $2::text::jsonb, 'ada') RETURNING id",
        people.pipeline.name,
        json.dumps({"documents_per_s": DOCUMENTS // 10}),
    )
    with process_of(environment, log, program) as (_, process):
        wait_until(lambda: len(parts()) >= DOCUMENTS // 50, JOB_TIMEOUT_S, "half of the chunks are read", poll_s=0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    at_half, last = parts(), {}
    manifest = next((tmp_path / "work").glob("*/manifest.json")).read_bytes()

    def is_over() -> bool:
        nonlocal last
        now = parts()
        last = now if len(now) >= len(last) else last
        return bool(one(database, "SELECT finished_at IS NOT NULL FROM reconciliation_jobs WHERE id = $1", job))

    with serving(environment, log, program):
        wait_until(is_over, JOB_TIMEOUT_S, "the job is over", poll_s=0.02)
    chunks = len(json.loads(manifest)["source_plan"])
    assert chunks >= 10
    assert len(at_half) < chunks < len(last)  # the table has parts too
    assert {name: last[name] for name in at_half} == at_half, "a part was written again"
    assert one(database, "SELECT outcome FROM reconciliation_jobs WHERE id = $1", job) == "equal"
    assert one(database, "SELECT attempts FROM reconciliation_jobs WHERE id = $1", job) == 2
    documents = "SELECT (summary ->> 'documents')::int FROM reconciliation_runs WHERE job_id = $1"
    assert one(database, documents, job) == DOCUMENTS


def test_the_command_says_what_is_wrong_with_the_question(stack: Stack, database: TrialDatabase) -> None:
    environment = {"PATH": "", **stack.writer_environment, "POSTGRES_DSN": database.dsn}
    unknown = command(environment, "no-such-pipeline")
    assert unknown.returncode == 2
    assert unknown.stderr == (
        "error: pipeline no-such-pipeline is not in cdc.pipelines; publish its spec, or correct the name\n"
    )
    assert one(database, "SELECT count(*) FROM reconciliation_jobs") == 0
    missing = command({"PATH": ""}, "shop")
    assert missing.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS is not set: set it to" in missing.stderr
