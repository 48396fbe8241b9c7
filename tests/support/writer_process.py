"""A delta-writer process of a test's own: started, looked at, stopped, or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from stack_endpoints import Stack
from waiting import wait_until

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 60.0
HTTP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 30


class WriterProcess:
    """`delta-writer run` with an HTTP port, a cache directory and a log file of its own.

    It follows `specs_topic` and not the stack's `cdc.pipelines`: it runs that topic's pipelines, and nobody else does.
    A new process on the same `directory` goes on with the same cache, as after a restart.
    """

    def __init__(
        self, stack: Stack, specs_topic: str, directory: Path, environment: dict[str, str] | None = None
    ) -> None:
        """Start the process. `environment` is added to what the stack says and wins."""
        directory.mkdir(parents=True, exist_ok=True)
        self.cache_dir = directory / "cache"
        self.log_file = directory / f"writer-{len(list(directory.glob('writer-*.log')))}.log"
        own = {
            "CDC_PIPELINES_TOPIC": specs_topic,
            "WRITER_HTTP_PORT": "0",
            "WRITER_CACHE_DIR": str(self.cache_dir),
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "json",
        }
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "delta_writer", "run"],
                env=inherited | stack.writer_environment | own | (environment or {}),
                cwd=directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the tests must not stop it behind the fixture's back
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @cached_property
    def url(self) -> str:
        """Where it serves /health, /ready and /metrics; waits for the log line that says so."""
        started = wait_until(self._started, START_TIMEOUT_S, "the writer serves HTTP")
        return str(started["http"])

    @cached_property
    def instance(self) -> str:
        """What it calls itself in its reports; waits as `url`."""
        started = wait_until(self._started, START_TIMEOUT_S, "the writer serves HTTP")
        return str(started["writer"])

    def get(self, path: str) -> httpx.Response:
        """One answer of its HTTP server, whatever the status."""
        return httpx.get(f"{self.url}{path}", timeout=HTTP_TIMEOUT_S, trust_env=False)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the specs are read and every pipeline reads and writes."""
        wait_until(lambda: self._checked() and self.get("/ready").is_success, timeout_s, "the writer is ready")

    def pipeline_state(self, pipeline: str) -> tuple[str, str | None]:
        """A pipeline's state and the reason for it, as /health shows them; ("", None) before it is known."""
        status = self.get("/health").json()["pipelines"].get(pipeline, {})
        return status.get("state", ""), status.get("reason")

    def wait_state(self, pipeline: str, state: str, timeout_s: float = START_TIMEOUT_S) -> str | None:
        """Wait until the pipeline is in `state`; return the reason that it gives."""
        wait_until(
            lambda: self._checked() and self.pipeline_state(pipeline)[0] == state, timeout_s, f"{pipeline} is {state}"
        )
        return self.pipeline_state(pipeline)[1]

    def wait_gone(self, pipeline: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the writer no longer knows the pipeline."""
        wait_until(lambda: not self.pipeline_state(pipeline)[0], timeout_s, f"{pipeline} is gone")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; `name` as exposed (`cdc_events_total`)."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def log_events(self) -> Iterator[dict[str, Any]]:
        """The log's events so far, in order. A line that is no JSON is given as `{"event": line}`."""
        for line in self.log_file.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                event = line
            yield event if isinstance(event, dict) else {"event": line}

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """SIGTERM, as an operator stops it. Raises AssertionError unless it ends in time and with status 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_TIMEOUT_S:.0f} s after SIGTERM\n{self.log_tail()}") from None
        assert status == 0, f"ended with status {status} after SIGTERM\n{self.log_tail()}"

    def log_tail(self) -> str:
        """The log's last lines."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _started(self) -> dict[str, Any] | None:
        self._checked()
        return next((event for event in self.log_events() if event.get("event") == "delta-writer started"), None)

    def check_alive(self) -> None:
        """Raise AssertionError with the log's end when the process has ended."""
        self._checked()

    def _checked(self) -> bool:
        assert self.alive, f"the writer ended with status {self._process.returncode}\n{self.log_tail()}"
        return True


@contextmanager
def asleep(writer: WriterProcess) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end of the block."""
    os.kill(writer.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(writer.pid, signal.SIGCONT)
