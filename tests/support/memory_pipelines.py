"""The repositories of pipelines and operations without Postgres: what `PipelineManager` needs of them, in memory."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from control_plane.models.operation import UNFINISHED, Operation, OperationKind, OperationState
from control_plane.models.pipeline import Desired, PipelineRecord
from control_plane.repositories.pipeline_repo import PipelineFilter

START = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryPipelines:
    """In the place of `pipeline_repo`; `operations` in the place of `operation_repo`."""

    def __init__(self) -> None:
        self.rows: dict[str, PipelineRecord] = {}
        self.locked: list[str] = []
        self.operations = MemoryOperations()

    async def insert(self, _: object, name: str, spec: Mapping[str, Any], by: str) -> UUID | None:
        if name in self.rows:
            return None
        made = uuid.uuid4()
        self.rows[name] = PipelineRecord(
            name, made, dict(spec), 1, Desired.STOPPED, 0, START, False, False, START, by, START, by
        )
        return made

    async def lock(self, _: object, name: str) -> bool:
        self.locked.append(name)
        return name in self.rows

    async def find(self, _: object, name: str) -> PipelineRecord | None:
        row = self.rows.get(name)
        return row and replace(row, operations=tuple(self.operations.unfinished(name)))

    async def page(
        self, _: object, which: PipelineFilter, after: str | None, limit: int | None
    ) -> list[PipelineRecord]:
        names = sorted(name for name in self.rows if after is None or name > after)
        found = [name for name in names if which.text is None or which.text in name]
        return [self.rows[name] for name in found[:limit]]

    async def replace_spec(self, _: object, name: str, spec: Mapping[str, Any], by: str) -> None:
        row = self.rows[name]
        self.rows[name] = replace(row, spec=dict(spec), version=row.version + 1, updated_by=by)

    async def move(self, _: object, name: str, desired: Desired, by: str, *, deleting: bool = False) -> None:
        row = self.rows[name]
        self.rows[name] = replace(
            row,
            desired=desired,
            desired_version=row.desired_version + 1,
            started=row.started or desired is Desired.RUNNING,
            deleting=row.deleting or deleting,
            updated_by=by,
        )

    def reach(self, name: str) -> None:
        """Do as the controller does once a pipeline is what it is wanted to be."""
        row = self.rows[name]
        self.rows[name] = replace(row, reached_version=row.desired_version)


class MemoryOperations:
    def __init__(self) -> None:
        self.all: list[Operation] = []

    def unfinished(self, pipeline: str) -> list[Operation]:
        return [each for each in self.all if each.pipeline == pipeline and each.state in UNFINISHED]

    def kinds(self, pipeline: str) -> list[OperationKind]:
        return [each.kind for each in self.unfinished(pipeline)]

    def end(self, operation: Operation, state: OperationState) -> None:
        """Do as the controller does once an operation has ended."""
        self.all = [each.model_copy(update={"state": state}) if each.id == operation.id else each for each in self.all]

    async def insert(
        self, _: object, pipeline: str, __: UUID, kind: OperationKind, arguments: Mapping[str, Any], by: str
    ) -> Operation:
        operation = Operation(
            id=uuid.uuid4(),
            pipeline=pipeline,
            kind=kind,
            arguments=dict(arguments),
            state=OperationState.PENDING,
            requested_by=by,
            requested_at=START,
        )
        self.all.append(operation)
        return operation

    async def cancel(self, _: object, pipeline: str, kinds: Collection[OperationKind]) -> int:
        pointless = [each for each in self.unfinished(pipeline) if each.kind in kinds]
        for each in pointless:
            self.end(each, OperationState.CANCELLED)
        return len(pointless)

    async def find(self, _: object, pipeline: str, operation: UUID) -> Operation | None:
        return next((each for each in self.all if (each.pipeline, each.id) == (pipeline, operation)), None)

    async def page(self, _: object, pipeline: str, before: int | None, limit: int) -> list[tuple[int, Operation]]:
        numbered = [(number, each) for number, each in enumerate(self.all, start=1) if each.pipeline == pipeline]
        return [each for each in reversed(numbered) if before is None or each[0] < before][:limit]
