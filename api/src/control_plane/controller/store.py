"""What the controller reads and stores in Postgres, over the connection that makes it the leader."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from cdc_shared.models.common import PipelineSpec
from control_plane.controller.leader import Leadership
from control_plane.controller.rows import OperationUpdate, PipelineRow, Round
from control_plane.database import Connection
from control_plane.models.operation import OperationState
from control_plane.models.pipeline import ConditionKind
from control_plane.repositories import condition_repo, operation_repo, pipeline_repo
from control_plane.services.lifecycle import config_of

MAX_TEXT_CHARS: Final = 2_000


def storable(text: str) -> str:
    """The text as Postgres takes it, whatever a system has said: no NUL, no half of a character, no novel."""
    return text.replace("\x00", "").encode(errors="replace").decode()[:MAX_TEXT_CHARS]


class ControllerStore:
    """Raises `LeadershipLost` once the connection is gone."""

    def __init__(self, leadership: Leadership, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._leadership = leadership
        self._now = now
        self._specs: dict[str, tuple[str, PipelineSpec]] = {}

    async def names(self) -> list[str]:
        """The names of all pipelines."""
        async with self._leadership.connection() as connection:
            return [each["name"] for each in await connection.fetch("SELECT name FROM pipelines")]

    async def load(self, name: str) -> PipelineRow | None:
        """The pipeline, and the operation whose turn it is; None when there is none.

        Raises `InvalidSpec` for a stored spec that this release refuses.
        """
        async with self._leadership.connection() as connection:
            record = await pipeline_repo.find(connection, name)
            if record is None:
                self._specs.pop(name, None)
                return None
            operation = await operation_repo.first_unfinished(connection, name)
        # Checking the rules of a spec takes long, and most rounds find it unchanged.
        etag, spec = self._specs.get(name, ("", None))
        if spec is None or etag != record.etag:
            spec = config_of(record).spec()
            self._specs[name] = (record.etag, spec)
        return PipelineRow(record, spec, operation)

    async def save(self, row: PipelineRow, result: Round) -> None:
        """Store what a round has found and done."""
        now = self._now()
        async with self._leadership.connection() as connection:
            if row.is_ours:
                await pipeline_repo.observe(
                    connection,
                    row.name,
                    now,
                    reached_version=row.record.desired_version if result.is_reached else None,
                    published_version=row.record.version if result.is_published else None,
                    rules_version=result.rules_version if result.is_published else None,
                )
                found = [(str(c.kind), c.status, str(c.reason), storable(c.message)) for c in result.conditions]
                await condition_repo.record(connection, row.name, found, now)
                if over := _found_no_more(row, result):
                    await condition_repo.remove(connection, row.name, over)
            if row.operation is not None and result.operation is not None:
                await _save_operation(connection, row, result.operation, now)


def _found_no_more(row: PipelineRow, result: Round) -> list[str]:
    """What was said of the source before, and is not any more: nobody would ever take it back. Until the source was
    looked at it stays."""
    found = {each.kind for each in result.conditions}
    if ConditionKind.SOURCE_REACHABLE not in found:
        return []
    return [each.kind for each in row.record.conditions if each.kind not in found]


async def _save_operation(connection: Connection, row: PipelineRow, update: OperationUpdate, now: datetime) -> None:
    operation = row.operation
    assert operation is not None  # nosec B101 # the caller has looked
    if update.state is OperationState.SUCCEEDED:
        is_stored = await operation_repo.succeed(connection, operation.id, storable(update.message))
        if is_stored and update.removes_pipeline:
            await pipeline_repo.remove(connection, row.name)
        elif is_stored and operation.kind == "reset" and not operation.arguments.get("keep_tables", True):
            await pipeline_repo.forget_start(connection, row.name)
    elif update.state is OperationState.FAILED:
        await operation_repo.fail(connection, operation.id, storable(update.error or ""))
    else:
        await operation_repo.begin(connection, operation.id)
        if update.memory is None:
            next_attempt_at = now + timedelta(seconds=update.next_attempt_in_s or 0)
            await operation_repo.postpone(connection, operation.id, storable(update.error or ""), next_attempt_at)
        else:
            await operation_repo.advance(
                connection,
                operation.id,
                update.memory,
                storable(update.message),
                holds_connector=update.holds_connector,
            )
