"""The life of a pipeline: which moves are allowed when, and what its state is called.

Moves go by what is *wanted*, so that somebody may change their mind before the controller is done; only what destroys
(reset, delete) waits for the pipeline to have stopped. The state is made of what is wanted and what is seen: no state
rests on a task that says RUNNING alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from cdc_shared.models.common import InvalidSpec
from control_plane.models.operation import Operation, OperationKind
from control_plane.models.pipeline import (
    ConditionKind,
    ConditionStatus,
    Desired,
    PipelineConfig,
    PipelineRecord,
    Reason,
    State,
)
from control_plane.problems import Problem

OBSERVATION_MAX_AGE_S: Final = 60.0
"""The controller looks at every pipeline every few seconds. What it saw longer ago proves nothing."""


class Move(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    RESTART = "restart"
    RESYNC = "resync"
    RESET = "reset"
    DELETE = "delete"
    CHANGE = "change"
    """Of the spec."""


@dataclass(frozen=True, slots=True)
class _Rule:
    wanted: frozenset[Desired]
    """What the pipeline must be wanted to be."""
    to: Desired | None = None
    """What it is wanted to be then; None: as before."""
    states: frozenset[State] = frozenset(State)
    blocked_by: frozenset[OperationKind] = frozenset()
    """Unfinished operations that have to end first."""


_ANY: Final = frozenset(Desired)
_AT_REST: Final = frozenset({State.STOPPED})

RULES: Final[Mapping[Move, _Rule]] = MappingProxyType(
    {
        Move.START: _Rule(frozenset({Desired.STOPPED}), Desired.RUNNING, blocked_by=frozenset({OperationKind.RESET})),
        Move.PAUSE: _Rule(frozenset({Desired.RUNNING}), Desired.PAUSED),
        Move.RESUME: _Rule(frozenset({Desired.PAUSED}), Desired.RUNNING),
        Move.STOP: _Rule(frozenset({Desired.RUNNING, Desired.PAUSED}), Desired.STOPPED),
        Move.RESTART: _Rule(
            frozenset({Desired.RUNNING, Desired.PAUSED}), blocked_by=frozenset({OperationKind.RESTART})
        ),
        Move.RESYNC: _Rule(frozenset({Desired.RUNNING})),
        Move.RESET: _Rule(frozenset({Desired.STOPPED}), states=_AT_REST, blocked_by=frozenset({OperationKind.RESET})),
        Move.DELETE: _Rule(frozenset({Desired.STOPPED}), states=_AT_REST, blocked_by=frozenset({OperationKind.RESET})),
        Move.CHANGE: _Rule(_ANY, blocked_by=frozenset({OperationKind.RESET})),
    }
)

CANCELS: Final[Mapping[Move, frozenset[OperationKind]]] = MappingProxyType(
    {
        # A resync stays: a collection that was added since needs it whenever the pipeline runs again.
        Move.STOP: frozenset({OperationKind.RESTART}),
        Move.RESET: frozenset({OperationKind.RESTART, OperationKind.RESYNC}),  # the next start snapshots everything
        Move.DELETE: frozenset(OperationKind) - {OperationKind.DELETE},
    }
)
"""Unfinished operations that a move makes pointless."""


def check_move(move: Move, record: PipelineRecord, now: datetime, *, force: bool = False) -> None:
    """Raises `Problem` 409, with the current state, when the move is not possible now.

    `force` overrides all but a deletion that is under way. A deletion may always be asked for again.
    """
    state = state_of(record, now)
    if record.deleting and move is not Move.DELETE:
        raise _refused(move, record, state, "it is being deleted")
    if record.deleting or force:
        return
    rule = RULES[move]
    if record.desired not in rule.wanted or state not in rule.states:
        raise _refused(move, record, state, _remedy(move, record.desired))
    if move is Move.RESET and not record.is_outside:
        raise _refused(move, record, state, "it was never started, so there is nothing of it to reset")
    for operation in record.operations:
        if operation.kind in rule.blocked_by:
            raise _blocked(move, record, state, operation)


def state_of(record: PipelineRecord, now: datetime) -> State:
    """What the pipeline is to be called."""
    kinds = {operation.kind for operation in record.operations}
    if record.deleting:
        return State.DELETING if OperationKind.DELETE in kinds else State.FAILED
    settled = record.reached_version == record.desired_version
    if record.desired is Desired.STOPPED:
        return State.STOPPED if settled else State.STOPPING
    if _has_failed(record):
        return State.FAILED
    if record.desired is Desired.RUNNING and _is_resyncing(record):
        return State.RESYNCING
    if not settled:
        return State.STARTING if record.desired is Desired.RUNNING else State.PAUSING
    if _is_stale(record, now) or _has_worries(record) or not is_reached(record):
        return State.DEGRADED
    return State.RUNNING if record.desired is Desired.RUNNING else State.PAUSED


def is_reached(record: PipelineRecord) -> bool:
    """Whether the conditions show the pipeline as what it is wanted to be. The controller records `reached_version`
    when they do.
    """
    connector = _reason(record, ConditionKind.CONNECTOR_RUNNING)
    writer = _reason(record, ConditionKind.WRITER_RUNNING)
    published = _status(record, ConditionKind.SPEC_PUBLISHED) is ConditionStatus.TRUE
    if record.desired is Desired.STOPPED:
        gone = {Reason.STOPPED, Reason.ABSENT, Reason.SILENT}
        told = published or _reason(record, ConditionKind.SPEC_PUBLISHED) == Reason.ABSENT  # nobody ever knew of it
        return told and connector in gone and writer in gone
    if record.desired is Desired.PAUSED:
        # The writer goes on: it drains what Kafka has.
        return published and connector == Reason.PAUSED and writer == Reason.RUNNING
    return (
        published
        and _status(record, ConditionKind.CONNECTOR_RUNNING) is ConditionStatus.TRUE
        and _status(record, ConditionKind.WRITER_RUNNING) is ConditionStatus.TRUE
    )


def config_of(record: PipelineRecord) -> PipelineConfig:
    """The spec as it is stored. Raises `InvalidSpec` when this release refuses what another one accepted."""
    try:
        return PipelineConfig.model_validate(record.spec)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the spec'}: {each['msg']}" for each in problems)
        raise InvalidSpec(
            f"pipeline {record.name}: its stored spec is not one of this release: {told}; replace it"
        ) from None


def _has_failed(record: PipelineRecord) -> bool:
    fateful = (ConditionKind.CONNECTOR_RUNNING, ConditionKind.SPEC_PUBLISHED, ConditionKind.WRITER_RUNNING)
    return any(_reason(record, kind) in (Reason.FAILED, Reason.REFUSED) for kind in fateful)


def _is_resyncing(record: PipelineRecord) -> bool:
    return any(operation.kind is OperationKind.RESYNC for operation in record.operations)


def _is_stale(record: PipelineRecord, now: datetime) -> bool:
    return record.observed_at is None or now - record.observed_at > timedelta(seconds=OBSERVATION_MAX_AGE_S)


def _has_worries(record: PipelineRecord) -> bool:
    return (
        _status(record, ConditionKind.RESYNC_NEEDED) is ConditionStatus.TRUE
        or _status(record, ConditionKind.OPLOG_AT_RISK) is ConditionStatus.TRUE
        or _status(record, ConditionKind.SOURCE_REACHABLE) is ConditionStatus.FALSE
        or _status(record, ConditionKind.PROGRESSING) is ConditionStatus.FALSE
    )


def _reason(record: PipelineRecord, kind: ConditionKind) -> str | None:
    condition = record.condition(kind)
    return condition.reason if condition else None


def _status(record: PipelineRecord, kind: ConditionKind) -> ConditionStatus | None:
    condition = record.condition(kind)
    return condition.status if condition else None


def _remedy(move: Move, desired: Desired) -> str:
    match move, desired:
        case ((Move.START | Move.RESYNC | Move.RESTART | Move.PAUSE), Desired.PAUSED):
            return "resume it first" if move is not Move.PAUSE else "it is to be paused already"
        case ((Move.START | Move.RESUME), Desired.RUNNING):
            return "it is to run already"
        case Move.STOP, Desired.STOPPED:
            return "it is to be stopped already"
        case _, Desired.STOPPED:
            if move in (Move.RESET, Move.DELETE):
                return "wait until it has stopped" + (", or say force" if move is Move.DELETE else "")
            return "start it first"
        case Move.DELETE, _:
            return "stop it first, or say force"
        case Move.RESET, _:
            return "stop it first"
    return f"it is to be {desired}"


def _refused(move: Move, record: PipelineRecord, state: State, why: str) -> Problem:
    return Problem(
        409,
        "invalid_transition",
        f"pipeline {record.name} is {state}; {_SAYS[move]} is not possible now: {why}",
        members={"state": state, "desired": record.desired},
    )


def _blocked(move: Move, record: PipelineRecord, state: State, operation: Operation) -> Problem:
    return Problem(
        409,
        "operation_in_progress",
        f"pipeline {record.name} is {state}; {_SAYS[move]} has to wait until its {operation.kind} has ended",
        members={"state": state, "desired": record.desired, "operation": str(operation.id)},
    )


_SAYS: Final[Mapping[Move, str]] = MappingProxyType(
    {move: ("changing its spec" if move is Move.CHANGE else str(move)) for move in Move}
)
