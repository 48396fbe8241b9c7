"""The state machine: every move in every situation, and what a pipeline is called."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdc_shared.models.common import InvalidSpec
from control_plane.models.operation import Operation, OperationKind, OperationState
from control_plane.models.pipeline import (
    Condition,
    ConditionKind,
    ConditionStatus,
    Desired,
    PipelineConfig,
    PipelineRecord,
    Reason,
    State,
)
from control_plane.problems import Problem
from control_plane.services.lifecycle import (
    CANCELS,
    OBSERVATION_MAX_AGE_S,
    RULES,
    Move,
    check_move,
    config_of,
    is_reached,
    state_of,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONFIG = PipelineConfig.model_validate({"name": "shop", "source": {"connection": "env:X", "database": "shop"}})

T, F, U = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
CONNECTOR, PUBLISHED, WRITER = (
    ConditionKind.CONNECTOR_RUNNING,
    ConditionKind.SPEC_PUBLISHED,
    ConditionKind.WRITER_RUNNING,
)
Found = dict[ConditionKind, tuple[ConditionStatus, str]]
ALL_RUNS: Found = {CONNECTOR: (T, "Running"), PUBLISHED: (T, "Published"), WRITER: (T, "Running")}
PAUSED: Found = ALL_RUNS | {CONNECTOR: (F, "Paused")}
STOPPED: Found = {CONNECTOR: (F, "Stopped"), PUBLISHED: (T, "Published"), WRITER: (F, "Stopped")}


def operation(kind: OperationKind, state: OperationState = OperationState.PENDING) -> Operation:
    return Operation(
        id=uuid.uuid4(), pipeline="shop", kind=kind, arguments={}, state=state, requested_by="me", requested_at=NOW
    )


def pipeline(
    desired: Desired = Desired.STOPPED, found: Found | None = None, *kinds: OperationKind, **fields: Any
) -> PipelineRecord:
    """A pipeline that the controller has just made what it is wanted to be, unless `fields` say otherwise."""
    conditions = tuple(
        Condition(kind=kind, status=status, reason=reason, message="", since=NOW)
        for kind, (status, reason) in (found or {}).items()
    )
    values: dict[str, Any] = {
        "name": "shop",
        "id": uuid.UUID(int=1),
        "spec": CONFIG.stored(),
        "version": 1,
        "desired": desired,
        "desired_version": 3,
        "desired_since": NOW,
        "started": True,
        "deleting": False,
        "created_at": NOW,
        "created_by": "me",
        "updated_at": NOW,
        "updated_by": "me",
        "reached_version": 3,
        "observed_at": NOW,
        "conditions": conditions,
        "operations": tuple(operation(kind) for kind in kinds),
    }
    return PipelineRecord(**(values | fields))


def refusal(move: Move, record: PipelineRecord) -> Problem | None:
    try:
        check_move(move, record, NOW)
    except Problem as problem:
        return problem
    return None


def allowed(record: PipelineRecord) -> set[Move]:
    """The moves that are possible. Each that is not says which state the pipeline is in."""
    state = state_of(record, NOW)
    refusals = {move: refusal(move, record) for move in Move}
    for problem in filter(None, refusals.values()):
        assert (problem.status, problem.members["state"]) == (409, state)
        assert f"is {state}" in problem.detail
    return {move for move, problem in refusals.items() if problem is None}


# --- moves ------------------------------------------------------------------------------------------------------------

RESET, RESYNC, RESTART, DELETE = OperationKind.RESET, OperationKind.RESYNC, OperationKind.RESTART, OperationKind.DELETE


@pytest.mark.parametrize(
    ("record", "moves"),
    [
        (pipeline(desired_version=0, reached_version=0, started=False), "start delete change"),
        (pipeline(Desired.STOPPED, STOPPED, started=False, published_version=1), "start reset delete change"),
        (pipeline(Desired.STOPPED, STOPPED), "start reset delete change"),
        (pipeline(Desired.STOPPED, ALL_RUNS, reached_version=2), "start change"),
        (pipeline(Desired.STOPPED, STOPPED, RESET), ""),
        (pipeline(Desired.STOPPED, STOPPED, RESYNC), "start reset delete change"),
        (pipeline(Desired.RUNNING, ALL_RUNS), "pause stop restart resync change"),
        (pipeline(Desired.RUNNING, {}, reached_version=2), "pause stop restart resync change"),
        (pipeline(Desired.RUNNING, {CONNECTOR: (F, "Failed")}), "pause stop restart resync change"),
        (pipeline(Desired.RUNNING, ALL_RUNS, RESYNC), "pause stop restart resync change"),
        (pipeline(Desired.RUNNING, ALL_RUNS, RESTART), "pause stop resync change"),
        (pipeline(Desired.PAUSED, PAUSED), "resume stop restart change"),
        (pipeline(Desired.PAUSED, ALL_RUNS, reached_version=2), "resume stop restart change"),
        (pipeline(Desired.STOPPED, STOPPED, DELETE, deleting=True), "delete"),
        (pipeline(Desired.STOPPED, STOPPED, deleting=True), "delete"),
    ],
)  # fmt: skip
def test_which_moves_are_possible(record: PipelineRecord, moves: str) -> None:
    assert allowed(record) == {Move(each) for each in moves.split()}


@pytest.mark.parametrize("desired", Desired)
def test_force_deletes_whatever_the_state(desired: Desired) -> None:
    check_move(Move.DELETE, pipeline(desired, ALL_RUNS, RESET, reached_version=1), NOW, force=True)


def test_force_undoes_no_deletion() -> None:
    with pytest.raises(Problem, match="being deleted"):
        check_move(Move.START, pipeline(deleting=True), NOW, force=True)


def test_a_stop_leaves_the_resync_that_a_new_collection_needs() -> None:
    assert RESYNC not in CANCELS[Move.STOP]
    assert RESYNC in CANCELS[Move.RESET]


def test_what_stands_in_the_way_is_named() -> None:
    waiting = pipeline(Desired.STOPPED, STOPPED, RESET)
    with pytest.raises(Problem) as caught:
        check_move(Move.START, waiting, NOW)
    assert caught.value.code == "operation_in_progress"
    assert caught.value.members["operation"] == str(waiting.operations[0].id)


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (pipeline(desired_version=0, reached_version=0, observed_at=None), State.STOPPED),
        (pipeline(Desired.STOPPED, STOPPED), State.STOPPED),
        (pipeline(Desired.STOPPED, {CONNECTOR: (F, "Failed")}, reached_version=2), State.STOPPING),
        (pipeline(Desired.RUNNING, {}, reached_version=2, observed_at=None), State.STARTING),
        (pipeline(Desired.RUNNING, {CONNECTOR: (T, "Running")}, reached_version=2), State.STARTING),
        (pipeline(Desired.RUNNING, ALL_RUNS), State.RUNNING),
        (pipeline(Desired.RUNNING, {CONNECTOR: (T, "Running")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {WRITER: (F, "Silent")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {PUBLISHED: (U, "Unavailable")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {ConditionKind.RESYNC_NEEDED: (T, "ChangesLost")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {ConditionKind.OPLOG_AT_RISK: (T, "Short")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {ConditionKind.SOURCE_REACHABLE: (F, "Away")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {ConditionKind.PROGRESSING: (F, "Stalled")}), State.DEGRADED),
        (pipeline(Desired.RUNNING, ALL_RUNS | {ConditionKind.SOURCE_REACHABLE: (T, "Answers")}), State.RUNNING),
        (pipeline(Desired.RUNNING, ALL_RUNS | {WRITER: (F, "Failed")}), State.FAILED),
        (pipeline(Desired.RUNNING, {PUBLISHED: (F, "Refused")}, reached_version=2), State.FAILED),
        (pipeline(Desired.RUNNING, ALL_RUNS, RESYNC), State.RESYNCING),
        (pipeline(Desired.RUNNING, ALL_RUNS, RESTART), State.RUNNING),
        (pipeline(Desired.PAUSED, ALL_RUNS, reached_version=2), State.PAUSING),
        (pipeline(Desired.PAUSED, PAUSED), State.PAUSED),
        (pipeline(Desired.PAUSED, PAUSED, RESYNC), State.PAUSED),
        (pipeline(Desired.PAUSED, PAUSED | {WRITER: (F, "Absent")}), State.DEGRADED),
        (pipeline(Desired.STOPPED, STOPPED, DELETE, deleting=True), State.DELETING),
        (pipeline(Desired.STOPPED, STOPPED, deleting=True), State.FAILED),
    ],
)
def test_states(record: PipelineRecord, state: State) -> None:
    assert state_of(record, NOW) is state


@pytest.mark.parametrize(("desired", "found"), [(Desired.RUNNING, ALL_RUNS), (Desired.PAUSED, PAUSED)])
def test_what_was_seen_long_ago_proves_nothing(desired: Desired, found: Found) -> None:
    record = pipeline(desired, found)
    fresh = NOW + timedelta(seconds=OBSERVATION_MAX_AGE_S)
    assert state_of(record, fresh) in (State.RUNNING, State.PAUSED)
    assert state_of(record, fresh + timedelta(seconds=1)) is State.DEGRADED
    assert state_of(replace(record, observed_at=None), NOW) is State.DEGRADED


@pytest.mark.parametrize(
    ("desired", "found", "reached"),
    [
        (Desired.RUNNING, ALL_RUNS, True),
        (Desired.RUNNING, PAUSED, False),
        (Desired.PAUSED, PAUSED, True),
        (Desired.PAUSED, ALL_RUNS, False),
        (Desired.PAUSED, PAUSED | {WRITER: (F, "Absent")}, False),
        (Desired.STOPPED, STOPPED, True),
        (Desired.STOPPED, STOPPED | {WRITER: (F, "Silent")}, True),
        (Desired.STOPPED, STOPPED | {WRITER: (T, "Running")}, False),
        (Desired.STOPPED, STOPPED | {CONNECTOR: (U, "Unavailable")}, False),
        (Desired.STOPPED, STOPPED | {PUBLISHED: (U, "Unavailable")}, False),
        (Desired.STOPPED, {CONNECTOR: (F, "Absent"), PUBLISHED: (F, "Absent"), WRITER: (F, "Absent")}, True),
        (Desired.STOPPED, {}, False),
    ],
)
def test_when_a_pipeline_is_what_it_is_wanted_to_be(desired: Desired, found: Found, reached: bool) -> None:
    assert is_reached(pipeline(desired, found)) is reached


@pytest.mark.parametrize("seed", range(20))
def test_no_pipeline_is_called_running_that_is_not(seed: int) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(500):
        kinds = [kind for kind in ConditionKind if rng.random() < 0.8]
        found = {kind: (rng.choice(list(ConditionStatus)), str(rng.choice(list(Reason)))) for kind in kinds}
        operations = [kind for kind in OperationKind if rng.random() < 0.1]
        seen = rng.choice([None, NOW, NOW - timedelta(hours=1)])
        reached, deleting = rng.randrange(2, 4), rng.random() < 0.1
        record = pipeline(
            rng.choice(list(Desired)), found, *operations, reached_version=reached, observed_at=seen, deleting=deleting
        )
        if state_of(record, NOW) is State.RUNNING:
            runs = all(found[kind][0] is T for kind in (CONNECTOR, PUBLISHED, WRITER))
            assert runs, record
            assert (record.desired, reached, seen, deleting) == (Desired.RUNNING, 3, NOW, False)
        assert allowed(record) or operations, f"nothing can be done about {record}"
        check_move(Move.DELETE, record, NOW, force=True)


def test_every_move_has_its_rule() -> None:
    assert set(RULES) == set(Move)


# --- the stored spec --------------------------------------------------------------------------------------------------


def test_a_spec_is_read_back_as_it_was_stored() -> None:
    assert config_of(pipeline()) == CONFIG


def test_a_spec_of_another_release_is_told_by_its_field_without_its_value() -> None:
    record = pipeline(spec=CONFIG.stored() | {"novelty": "hunter2-planted"})
    with pytest.raises(InvalidSpec, match=r"pipeline shop: .*novelty") as caught:
        config_of(record)
    assert "hunter2" not in str(caught.value)
