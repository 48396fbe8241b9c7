"""People and programs at work on the API, for locust: each user signs in, looks at pipelines and changes some.

    set -a; . .local/endpoints.env; set +a
    .venv/bin/locust -f tests/load/locustfile.py --host "$API_URL" --headless --users 200 --spawn-rate 200 --run-time 1m

A user sends its next request when the last one is answered (`--think-time` waits in between). Measuring begins when all
have signed in, and ends after `--measure-time`, or with the run; `--result` keeps its figures. What a user makes it
deletes, at the latest when it stops. All sign in as one user at a rate far above what the API allows: raise
API_RATE_LIMIT and API_AUTH_RATE_LIMIT for a run.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from argparse import ArgumentParser
from collections import deque
from pathlib import Path
from threading import Event, Timer  # locust has made them gevent's, and time.sleep
from typing import Any

from locust import FastHttpUser, events, task
from locust.env import Environment

API = "/api/v1"
MOST_PIPELINES = 2
"""Of one user at a time."""
MOVES = {"stopped": "start", "running": "stop", "paused": "stop"}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--think-time", type=float, default=0.0, help="mean seconds between an answer and the next request"
    )
    parser.add_argument("--measure-time", type=float, help="seconds from when all have signed in to the end of the run")
    parser.add_argument("--result", type=Path, help="write what was measured to this file, as JSON")


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def _write_result(environment: Environment, **_: Any) -> None:
    """Before the users stop: what they delete then is not measured."""
    path = environment.parsed_options.result if environment.parsed_options else None
    if path is not None:
        path.write_text(json.dumps(_figures(environment), indent=2) + "\n", encoding="utf-8")


def _figures(environment: Environment) -> dict[str, Any]:
    total = environment.stats.total
    return {
        "users": environment.runner.user_count if environment.runner else 0,
        "requests": total.num_requests,
        "failures": [f"{each.method} {each.name}: {each.error}" for each in environment.stats.errors.values()],
        "requests_per_s": total.total_rps,
        "percentiles_ms": {str(p): total.get_response_time_percentile(p / 100) for p in (50, 95, 99)},
        "by_name": {
            f"{method} {name}": {
                "requests": each.num_requests,
                "p50_ms": each.get_response_time_percentile(0.5),
                "p95_ms": each.get_response_time_percentile(0.95),
            }
            for (name, method), each in environment.stats.entries.items()
        },
    }


class _Start:
    """Holds all users until the last has signed in, so that signing in is not measured."""

    def __init__(self) -> None:
        self._signed_in = 0
        self._open = Event()

    def wait(self, environment: Environment) -> None:
        self._signed_in += 1
        assert environment.runner is not None
        if self._signed_in == environment.runner.target_user_count:
            environment.stats.reset_all()
            self._open.set()
            options = environment.parsed_options
            if options is not None and options.measure_time:
                Timer(options.measure_time, environment.runner.quit).start()
        self._open.wait()


START = _Start()


class ApiUser(FastHttpUser):
    """Reads five times as often as it writes."""

    network_timeout = 60.0
    connection_timeout = 60.0

    def wait_time(self) -> float:
        """People do not act in step, so no two think for the same time: half of it at least, half more at most."""
        return self._random.uniform(0.5, 1.5) * float(self.environment.parsed_options.think_time)

    def on_start(self) -> None:
        self._random = random.Random()
        self._made: deque[str] = deque()
        self._desired: dict[str, str] = {}
        form = {"username": os.environ["API_ADMIN_USER"], "password": os.environ["API_ADMIN_PASSWORD"]}
        self._keep(self.client.post(f"{API}/auth/token", data=form).json())
        self._make()
        START.wait(self.environment)
        time.sleep(self._random.uniform(0.0, 1.0) * self.environment.parsed_options.think_time)

    def on_stop(self) -> None:
        while self._made:
            self._remove()

    @task(30)
    def list_pipelines(self) -> None:
        self._get("/pipelines?limit=20", "/pipelines")

    @task(25)
    def read_a_pipeline(self) -> None:
        self._get(f"/pipelines/{self._own()}", "/pipelines/{name}")

    @task(10)
    def look_at_its_status(self) -> None:
        self._get(f"/pipelines/{self._own()}/status", "/pipelines/{name}/status")

    @task(2)
    def read_the_metrics(self) -> None:
        self._get("/metrics", "/metrics")

    @task(8)
    def read_ones_account(self) -> None:
        self._get("/auth/me", "/auth/me")

    @task(5)
    def read_the_audit_trail(self) -> None:
        self._get("/audit?limit=20", "/audit")

    @task(6)
    def change_a_pipeline(self) -> None:
        name = self._own()
        answer = self._get(f"/pipelines/{name}", "/pipelines/{name}")
        if answer.status_code != 200:
            return
        spec = _spec(name) | {"batch": {"max_seconds": self._random.randint(1, 10)}}
        headers = self._headers | {"If-Match": answer.headers["ETag"]}
        self.client.put(f"{API}/pipelines/{name}", json=spec, headers=headers, name=f"{API}/pipelines/{{name}}")

    @task(5)
    def start_or_stop_a_pipeline(self) -> None:
        name = self._own()
        move = MOVES[self._desired[name]]
        path = f"{API}/pipelines/{{name}}/{move}"
        headers = self._headers | {"Idempotency-Key": uuid.uuid4().hex}
        if self.client.post(f"{API}/pipelines/{name}/{move}", headers=headers, name=path).status_code == 202:
            self._desired[name] = "running" if move == "start" else "stopped"

    @task(5)
    def make_or_delete_a_pipeline(self) -> None:
        if len(self._made) < MOST_PIPELINES:
            self._make()
        else:
            self._remove()

    @task(1)
    def renew_the_tokens(self) -> None:
        answer = self.client.post(f"{API}/auth/refresh", json={"refresh_token": self._refresh_token})
        if answer.status_code == 200:
            self._keep(answer.json())

    def _keep(self, tokens: dict[str, Any]) -> None:
        self._headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        self._refresh_token = tokens["refresh_token"]

    def _get(self, path: str, name: str) -> Any:
        return self.client.get(f"{API}{path}", headers=self._headers, name=f"{API}{name}")

    def _own(self) -> str:
        return self._random.choice(self._made)

    def _make(self) -> None:
        name = f"load-{uuid.uuid4().hex[:12]}"
        headers = self._headers | {"Idempotency-Key": uuid.uuid4().hex}
        if self.client.post(f"{API}/pipelines", json=_spec(name), headers=headers).status_code == 201:
            self._made.append(name)
            self._desired[name] = "stopped"

    def _remove(self) -> None:
        name = self._made.popleft()
        path = f"{API}/pipelines/{name}?force=true"
        self.client.delete(path, headers=self._headers, name=f"{API}/pipelines/{{name}}")


def _spec(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "source": {"connection": "env:NO_SUCH_SOURCE", "database": "shop", "include_collections": ["orders"]},
    }
