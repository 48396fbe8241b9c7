"""What the controller reads and stores in Postgres: whose turn it is, and what is said of a pipeline no more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from api_database import TrialDatabase

from control_plane.controller.conditions import is_not, is_so, not_known
from control_plane.controller.leader import Leadership
from control_plane.controller.rows import OperationUpdate, PipelineRow, Round
from control_plane.controller.store import ControllerStore
from control_plane.database import prepare_connection
from control_plane.models.operation import Operation, OperationKind, OperationState
from control_plane.models.pipeline import Condition, ConditionKind, Desired, PipelineConfig, ResyncRequest
from control_plane.repositories import operation_repo, pipeline_repo
from control_plane.services.lifecycle import Move
from control_plane.services.pipeline_manager import PipelineManager

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

CONFIG = PipelineConfig.model_validate({"name": "shop", "source": {"connection": "env:X", "database": "shop"}})
ANSWERS = is_so(ConditionKind.SOURCE_REACHABLE, "Answers", "the source answers")
AT_RISK = is_so(ConditionKind.OPLOG_AT_RISK, "FallsBehind", "it falls behind")


class Controlled:
    """A started pipeline, the people's side of it and the controller's."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.manager = PipelineManager()
        self.store = ControllerStore(Leadership(connection, time.monotonic))

    async def row(self) -> PipelineRow:
        row = await self.store.load("shop")
        assert row is not None
        return row

    async def turn(self) -> OperationKind | None:
        operation = (await self.row()).operation
        return None if operation is None else operation.kind

    async def step(self, *, holds_connector: bool) -> None:
        """Do as a step does that was taken."""
        update = OperationUpdate(OperationState.RUNNING, "on its way", {"phase": "x"}, holds_connector)
        await self.store.save(await self.row(), Round((), False, 1.0, update))

    async def find(self, *conditions: Condition) -> dict[str, str]:
        """Do as a round does that has found these; what is said of the pipeline then."""
        await self.store.save(await self.row(), Round(conditions, False, 1.0))
        return {each.kind: each.status for each in (await self.row()).record.conditions}


@pytest.fixture
async def controlled(database: TrialDatabase) -> AsyncIterator[Controlled]:
    connection = await asyncpg.connect(database.dsn)
    try:
        await prepare_connection(connection)
        controlled = Controlled(connection)
        await controlled.manager.create(connection, CONFIG, "me")
        await controlled.manager.move(connection, "shop", Move.START, "me")
        yield controlled
    finally:
        await connection.close()


async def test_a_restart_waits_for_no_snapshot(controlled: Controlled) -> None:
    """While a resync does something to the connector itself, it does; while it only follows it, for hours perhaps, or
    until the pipeline is resumed, it does not."""
    connection, manager = controlled.connection, controlled.manager
    await manager.resync(connection, "shop", ResyncRequest(), "me")
    await manager.restart(connection, "shop", "me")
    assert await controlled.turn() is OperationKind.RESTART
    (restart,) = [each for each in await _unfinished(controlled) if each.kind is OperationKind.RESTART]
    await operation_repo.succeed(connection, restart.id, "done")
    await controlled.step(holds_connector=True)
    await manager.restart(connection, "shop", "me")
    assert await controlled.turn() is OperationKind.RESYNC
    await controlled.step(holds_connector=False)
    assert await controlled.turn() is OperationKind.RESTART


async def test_what_is_not_found_any_more_is_not_said_any_more(controlled: Controlled) -> None:
    """The connector has forgotten its place, say: nobody would ever take back that the place is at risk."""
    answers, at_risk = (ConditionKind.SOURCE_REACHABLE, "true"), (ConditionKind.OPLOG_AT_RISK, "true")
    assert await controlled.find(ANSWERS, AT_RISK) == dict([answers, at_risk])
    assert await controlled.find() == dict([answers, at_risk]), "the source was not looked at yet, after a start"
    away = not_known(ConditionKind.OPLOG_AT_RISK, "Kafka Connect is away")
    assert await controlled.find(ANSWERS, away) == dict([answers, (ConditionKind.OPLOG_AT_RISK, "unknown")])
    assert await controlled.find(ANSWERS) == dict([answers])
    gone = is_not(ConditionKind.SOURCE_REACHABLE, "Unavailable", "it does not answer")
    assert await controlled.find(gone) == {ConditionKind.SOURCE_REACHABLE: "false"}


async def _unfinished(controlled: Controlled) -> tuple[Operation, ...]:
    record = await pipeline_repo.find(controlled.connection, "shop")
    assert record is not None
    assert record.desired is Desired.RUNNING
    return record.operations
