"""schemathesis, all checks, alone and stateful: the served API is as it describes itself, whoever calls and sends what.

The description is taken without `default`, so every status that an operation answers with is one that it documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_database import TrialDatabase
from api_fuzzing import Caller, Pipelines, fuzz
from api_process import ApiProcess
from stack_endpoints import Stack

from control_plane.openapi import openapi_yaml
from control_plane.permissions import Role

pytestmark = pytest.mark.contract

DOCUMENT: dict[str, Any] = yaml.safe_load(openapi_yaml())
OPERATIONS = {f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item}
GUARDED = {
    f"{method.upper()} {path}"
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if "security" in operation
}
PHASES = ("examples", "coverage", "fuzzing", "stateful")
TIME_S = 8
"""Of the admin's coverage and stateful phases: they would go on for minutes. The seed decides in which order."""


def only(*phases: str) -> dict[str, Any]:
    return {phase: {"enabled": phase in phases} for phase in PHASES}


@pytest.fixture
def process(stack: Stack, database: TrialDatabase, tmp_path: Path) -> Iterator[ApiProcess]:
    started = ApiProcess(stack, database, tmp_path)
    yield started
    started.kill()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What the run prints decides what is sent."""
    return int(request.config.getoption("--hypothesis-seed"))


@pytest.mark.timeout(240)
def test_an_admin_finds_nothing(
    process: ApiProcess, database: TrialDatabase, seed: int, measured: Callable[[str, float, str], None]
) -> None:
    caller, pipelines = Caller(process.url, database, Role.ADMIN), Pipelines(database)
    statuses: Counter[str] = Counter()
    for phases, max_time_s in ((("examples", "fuzzing"), None), (("coverage",), TIME_S), (("stateful",), TIME_S)):
        found = fuzz(
            DOCUMENT,
            process.url,
            caller,
            pipelines,
            seed=seed,
            max_examples=1,
            phases=only(*phases),
            max_time_s=max_time_s,
        )
        assert not found.failures, f"{phases}: {found}\n{process.log_tail()}"
        assert found.statuses, f"{phases}: nothing was sent"
        statuses += found.statuses
    measured("requests of an admin", sum(statuses.values()), "requests")
    assert operations(statuses) == OPERATIONS
    accepted = operations(each for each in statuses if each[-3] == "2")
    assert len(accepted) > len(OPERATIONS) / 2, f"never answered with success: {sorted(OPERATIONS - accepted)}"


@pytest.mark.timeout(240)
def test_nobody_else_finds_anything(process: ApiProcess, database: TrialDatabase, seed: int) -> None:
    pipelines = Pipelines(database)
    for role in (Role.OPERATOR, Role.ANALYST, Role.AUDITOR, None):
        caller = None if role is None else Caller(process.url, database, role)
        found = fuzz(DOCUMENT, process.url, caller, pipelines, seed=seed, max_examples=1, phases=only("fuzzing"))
        assert not found.failures, f"{role}: {found}\n{process.log_tail()}"
        assert operations(found.statuses) == OPERATIONS
        if role is None:
            assert not operations(each for each in found.statuses if each[-3] == "2") & GUARDED


def operations(statuses: Iterable[str]) -> set[str]:
    """Those that `GET /path 200` and its like are of."""
    return {each.rpartition(" ")[0] for each in statuses}
