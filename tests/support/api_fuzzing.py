"""schemathesis against a served control plane: who calls, which pipelines there are, and what was found."""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import schemathesis
from api_database import TrialDatabase
from api_process import PASSWORD
from passlib.hash import argon2
from schemathesis import AuthContext, Case, HookContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from control_plane.permissions import Role

PIPELINES: Final = tuple(f"fuzzed-{n}" for n in range(8))
JOB: Final = "11111111-1111-4111-8111-111111111111"
REPAIR: Final = "22222222-2222-4222-8222-222222222222"
SCHEDULE: Final = "33333333-3333-4333-8333-333333333333"
"""Of the first pipeline: a completed job with a report and something to repair, a proposed repair, a schedule."""
EXISTING_SHARE: Final = 0.8
"""Of the requests that name a pipeline, those that name one of these."""
MOST_DELETED: Final = 5
"""Of them. The one that was deleted first is made again then: nothing asks for it as a deleted one any more."""
UNSETTLED_EVERY: Final = 4
"""Of the accepted moves, this one is left as the API alone leaves it; the others are carried out."""
NO_INTEGER: Final = "Input should be a valid integer"
"""Of 1.0, which JSON Schema takes for one. Specs are read strictly, and no schema says how a number is spelled."""
STORE_URL: Final = "body.sink.root"
"""A URL of a store that the platform knows, without a user and a password: it is parsed, not matched."""
TIMEOUT_S: Final = 60.0

BEFORE_ROUTING: Final = ("405", "413")
"""Statuses that any path may answer with, before a route's own code: no operation lists them."""
REFUSALS: Final = ("401", "403", "404", "409", "412", "428", "429")
"""Of requests that fit the description: they depend on who calls, on what there is, on the state that it is in (409,
412, 428: `If-Match` is needed only where something would be overwritten), and on the guesses before (429).
"""


class Caller:
    """Calls as a user of its own, and as another new one once what it sent has ended that one's session."""

    def __init__(self, url: str, database: TrialDatabase, role: Role) -> None:
        self._url, self._database, self._role = url, database, role
        self._hash = argon2.using(type="ID", memory_cost=1024, rounds=1, parallelism=1).hash(PASSWORD)
        self._token: str | None = None

    def token(self) -> str:
        """A token of a session that goes on, as far as is known."""
        if self._token is None:
            self._token = self._sign_in(asyncio.run(self._new_user()))
        return self._token

    def look(self, response: Response) -> None:
        """Notice that the session has ended, or serves for nothing but to change the password."""
        if self._token is None or response.request.headers.get("Authorization") != f"Bearer {self._token}":
            return
        is_signed_out = response.status_code == 204 and (response.request.url or "").endswith("/logout")
        has_forgotten = response.status_code == 403 and b'"password_must_be_changed"' in response.content
        if is_signed_out or has_forgotten or response.status_code == 401:
            self._token = None

    async def _new_user(self) -> str:
        """Made past the API: what was sent may have disabled every admin that the test knows the password of."""
        name = f"{self._role}-{uuid.uuid4().hex[:8]}"
        await self._database.execute("DELETE FROM login_failures")
        await self._database.fetch(
            "WITH made AS (INSERT INTO users (name, password_hash, created_at, password_changed_at)"
            " VALUES ($1, $2, now(), now()) RETURNING id) INSERT INTO user_roles SELECT id, $3 FROM made",
            name,
            self._hash,
            self._role.value,
        )
        return name

    def _sign_in(self, name: str) -> str:
        form = {"username": name, "password": PASSWORD}
        answer = httpx.post(f"{self._url}/api/v1/auth/token", data=form, timeout=TIMEOUT_S, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


class Pipelines:
    """Some that there are, and a stand-in for the controller, so that moves and operations come to an end."""

    def __init__(self, database: TrialDatabase) -> None:
        self._database = database
        self._deleted: deque[str] = deque()
        self._accepted = 0
        for name in PIPELINES:
            self._make(name)
        asyncio.run(self._reconcile())

    def look(self, response: Response) -> None:
        """Carry out what was accepted."""
        if response.status_code != 202:
            return
        self._accepted += 1
        if self._accepted % UNSETTLED_EVERY:
            asyncio.run(self._settle())
        if len(self._deleted) > MOST_DELETED:
            self._make(self._deleted.popleft())

    async def _settle(self) -> None:
        await self._database.execute(
            "UPDATE operations SET state = 'succeeded', finished_at = now() WHERE state IN ('pending', 'running');"
            "INSERT INTO observations (pipeline, reached_version, observed_at)"
            " SELECT name, desired_version, now() FROM pipelines ON CONFLICT (pipeline) DO UPDATE"
            " SET reached_version = excluded.reached_version, observed_at = now()"
        )
        gone = await self._database.fetch("DELETE FROM pipelines WHERE deleting RETURNING name")
        self._deleted += [each["name"] for each in gone if each["name"] in PIPELINES]

    async def _reconcile(self) -> None:
        """Have the first pipeline reconciled."""
        of = PIPELINES[0]
        await self._database.execute(
            "INSERT INTO reconciliation_jobs (id, pipeline, mode, state, outcome, finished_at, requested_by)"
            f" VALUES ('{JOB}', '{of}', 'full', 'completed', 'differences', now(), 'test');"
            "INSERT INTO reconciliation_runs (id, job_id, pipeline, database, collection, state, outcome)"
            f" VALUES ('{JOB}', '{JOB}', '{of}', 'shop', 'orders', 'completed', 'differences');"
            "INSERT INTO reconciliation_differences VALUES"
            f""" ('{JOB}', 0, 'missing', '1', 'x', '{{"explanation": "no row", "document": "{{}}"}}');"""
            f"""INSERT INTO reconciliation_reports (run_id, report) VALUES ('{JOB}', '{{"format": 1}}');"""
            "INSERT INTO reconciliation_repairs (id, pipeline, job_id, kinds, max_keys, plan, proposed_by) VALUES"
            f""" ('{REPAIR}', '{of}', '{JOB}', '{{missing}}', 5,"""
            """ '{"keys": 1, "by_kind": {"missing": 1}, "not_repairable": []}', 'test');"""
            "INSERT INTO reconciliation_schedules (id, pipeline, config, created_by, updated_by) VALUES"
            f""" ('{SCHEDULE}', '{of}', '{{"cron": "0 2 * * *"}}', 'test', 'test')"""
        )

    def _make(self, name: str) -> None:
        source = {"connection": "env:NOWHERE", "database": "shop", "include_collections": ["orders"]}
        asyncio.run(
            self._database.fetch(
                "INSERT INTO pipelines (name, spec, created_by, updated_by, started)"
                " VALUES ($1, $2, 'test', 'test', $3) ON CONFLICT DO NOTHING",
                name,
                json.dumps({"name": name, "source": source}),
                name == PIPELINES[0],
            )
        )


@dataclass
class Findings:
    """What a run has sent and what it has found."""

    seed: int
    statuses: Counter[str] = field(default_factory=Counter)
    """`GET /path 200` → how often."""
    failures: dict[str, str] = field(default_factory=dict)
    """What is wrong, once for each operation and kind → how it is seen."""

    def __str__(self) -> str:
        shown = "\n\n".join(f"{what}\n{how}" for what, how in self.failures.items())
        return f"{len(self.failures)} findings with the seed {self.seed}:\n\n{shown}"


def fuzz(
    document: Mapping[str, Any],
    url: str,
    caller: Caller | None,
    pipelines: Pipelines,
    *,
    seed: int,
    max_examples: int,
    phases: Mapping[str, Any] | None = None,
    max_time_s: int | None = None,
) -> Findings:
    """Send what the description allows and what it does not, alone and in sequences; all checks on each answer."""
    schema = schemathesis.openapi.from_dict(
        _explicit(document), config=_config(url, seed, max_examples, phases or {}, max_time_s)
    )
    if caller is not None:
        token = caller.token

        @schema.auth(refresh_interval=None)
        class Auth:
            def get(self, case: Case[Any], context: AuthContext) -> str:
                return token()

            def set(self, case: Case[Any], data: str, context: AuthContext) -> None:
                case.headers["Authorization"] = f"Bearer {data}"

    @schema.hook
    def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
        if caller is not None:
            caller.look(response)
        pipelines.look(response)

    @schema.hook
    def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
        if isinstance(failure, UseAfterFree):  # operations outlive their pipeline: how its deletion went is told there
            return "/operations" not in case.operation.path
        return not (isinstance(failure, RejectedPositiveData) and refuses_meaning(case, response))

    found = Findings(seed)
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _take(found, event)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.failures[f"error: {getattr(event, 'label', '')}"] = repr(event)
    return found


def refuses_meaning(case: Case[Any], response: Response) -> bool:
    """Whether data that fit the description are refused for what they mean, which no schema can say.

    A cursor that no page gave, a key that was used for another request, a password that is too weak, rules whose SQL
    does not parse, parts of a body that contradict each other. A field that is wrong by itself is none of these: the
    description should have said so.
    """
    if response.status_code != 422:
        return False
    errors = response.json().get("errors", ())
    return all(
        error["message"] == NO_INTEGER or error["field"] == STORE_URL or _is_whole(case, error["field"])
        for error in errors
    )


def _is_whole(case: Case[Any], field: str) -> bool:
    """Whether what an error names is an object of the request, not a value by itself."""
    place, *steps = field.split(".")
    part: Any = case.body if place == "body" else {}
    for step in steps:
        if isinstance(part, list) and step.isdecimal():
            part = part[int(step)]
        else:
            part = part.get(step) if isinstance(part, dict) else None
    return isinstance(part, dict)


def _config(
    url: str, seed: int, max_examples: int, phases: Mapping[str, Any], max_time_s: int | None
) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": url,
            "request-timeout": TIMEOUT_S,
            "generation": {"max-examples": max_examples, "mode": "all", "database": "none"},
            "phases": dict(phases),
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", *REFUSALS]}},
            "dictionaries": {
                "pipelines": {"values": list(PIPELINES)},
                "any-version": {"values": ["*"]},
                "job": {"values": [JOB]},
                "repair": {"values": [REPAIR]},
                "schedule": {"values": [SCHEDULE]},
            },
            "parameters": {
                "path.name": {"dictionary": "pipelines", "probability": EXISTING_SHARE},
                "header.If-Match": {"dictionary": "any-version", "probability": EXISTING_SHARE},
                "path.job": {"dictionary": "job", "probability": EXISTING_SHARE},
                "path.repair": {"dictionary": "repair", "probability": EXISTING_SHARE},
                "path.schedule": {"dictionary": "schedule", "probability": EXISTING_SHARE},
            },
        }
        | ({"max-time": max_time_s} if max_time_s else {})
    )


def _explicit(document: Mapping[str, Any]) -> dict[str, Any]:
    """The description without `default`, under which any status would pass."""
    explicit = copy.deepcopy(dict(document))
    for operations in explicit["paths"].values():
        for operation in operations.values():
            default = operation["responses"].pop("default")
            for status in BEFORE_ROUTING:
                operation["responses"].setdefault(status, default)
    return explicit


def _take(found: Findings, event: events.ScenarioFinished) -> None:
    recorder = event.recorder
    for case_id, interaction in recorder.interactions.items():
        case = recorder.cases[case_id].value
        status = interaction.response.status_code if interaction.response else "none"
        found.statuses[f"{case.operation.label} {status}"] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            failure = check.failure_info.failure
            response = recorder.find_response(case_id=case_id)
            what = f"{recorder.cases[case_id].value.operation.label}: {check.name}: {failure.title}"
            how = f"{failure.message}\n{check.failure_info.code_sample}"
            if response is not None:
                how += f"\n→ {response.status_code} {response.text[:600]}"
            found.failures.setdefault(what, how)
