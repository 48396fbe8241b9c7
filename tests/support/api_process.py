"""The control plane as a process of a test's own, as it is served: with a port, a database and secrets of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from api_database import TrialDatabase
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.security import crypto

ADMIN = "admin"
PASSWORD = "a-long-Test-passphrase-7"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 30
UNLIMITED = "1000000/second"


class ApiProcess:
    """`cdc-control-plane serve`, without rate limits and without a controller unless `environment` says otherwise."""

    def __init__(
        self,
        stack: Stack,
        database: TrialDatabase,
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process. Several may share a database and a directory: then they share their signing keys."""
        directory.mkdir(parents=True, exist_ok=True)
        self.log_file = directory / f"api-{len(list(directory.glob('api-*.log')))}.log"
        key_file = directory / "secrets.key"
        if not key_file.exists():
            key_file.write_text(crypto.encode_key(crypto.generate_key()))
            key_file.chmod(0o600)
        own = {
            "POSTGRES_DSN": database.dsn,
            "API_PORT": "0",
            "API_ADMIN_USER": ADMIN,
            "API_ADMIN_PASSWORD": PASSWORD,
            "API_RATE_LIMIT": UNLIMITED,
            "API_AUTH_RATE_LIMIT": UNLIMITED,
            "API_CONTROLLER": "0",
            "CONNECT_SECRETS_DIR": str(directory / "connect-secrets"),
            "CDC_SECRETS_FILE": str(directory / "secrets.enc"),
            "CDC_SECRETS_KEY_FILE": str(key_file),
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "json",
        }
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "control_plane", "serve"],
                env=inherited | stack.writer_environment | own | dict(environment or {}),
                cwd=directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the tests must not stop it behind the fixture's back
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @cached_property
    def url(self) -> str:
        """Where it serves; waits for the log line that says so."""
        line = wait_until(self._serving, START_TIMEOUT_S, "the API serves")
        return f"http://{line['host']}:{line['port']}"

    def sign_in(self) -> dict[str, Any]:
        """The admin's tokens."""
        form = {"username": ADMIN, "password": PASSWORD}
        answer = httpx.post(f"{self.url}/api/v1/auth/token", data=form, timeout=START_TIMEOUT_S, trust_env=False)
        answer.raise_for_status()
        tokens: dict[str, Any] = answer.json()
        return tokens

    def stop(self) -> None:
        """SIGTERM, as an operator stops it. Raises AssertionError unless it ends in time and with status 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_TIMEOUT_S:.0f} s after SIGTERM\n{self.log_tail()}") from None
        assert status == 0, f"ended with status {status} after SIGTERM\n{self.log_tail()}"

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def log_tail(self) -> str:
        """The log's last lines."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _serving(self) -> dict[str, Any] | None:
        assert self._process.poll() is None, f"the API ended with status {self._process.returncode}\n{self.log_tail()}"
        for line in self.log_file.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("event") == "serving":
                return event
        return None
