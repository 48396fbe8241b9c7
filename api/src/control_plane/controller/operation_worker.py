"""Working one pipeline's operations: step after step, with a back-off between attempts at the same one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cdc_shared.errors import CdcError, Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec
from control_plane.controller.backoff import BackOff
from control_plane.controller.operations.operation import Done, Operation, OperationContext
from control_plane.controller.rows import OperationUpdate, PipelineRow
from control_plane.models.operation import OperationKind, OperationState
from control_plane.repositories.operation_repo import OperationRecord

MAX_UNFORESEEN: Final = 5
"""Attempts at a step that ends in an error which nobody foresaw: that is a fault of ours, not an outage."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of a round's work on an operation."""

    update: OperationUpdate | None
    """None: nothing is to be stored, its next attempt is not due."""
    holds_connector: bool
    again_in_s: float


class OperationWorker:
    """Blocks as its operations do; raises nothing that they raise."""

    def __init__(
        self, operations: Mapping[OperationKind, Operation], clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._operations = operations
        self._clock = clock
        self._backoff = BackOff(rng)

    def reset(self) -> None:
        """Try at once what has failed."""
        self._backoff.reset()

    def work(self, row: PipelineRow, operation: OperationRecord, spec: PipelineSpec) -> Worked:
        """Take the next step, if it is due. `spec` is what writers have, or will have."""
        now = self._clock()
        if not self._backoff.is_due(now):
            return Worked(None, operation.holds_connector, self._backoff.not_before - now)
        if operation.kind is OperationKind.DELETE and not row.is_ours:
            return _done(Done("it was never started: there is nothing to remove", removes_pipeline=True))
        context = OperationContext(
            spec, row.desired, operation.arguments, operation.memory, attempts=operation.attempts
        )
        try:
            result = self._operations[operation.kind].step(context)
        except CdcError as error:
            if not isinstance(error, Transient):
                log.warning("operation failed", pipeline=row.name, operation=operation.kind, reason=str(error))
            return self._failed(operation, error, may_be_repeated=isinstance(error, Transient))
        except Exception as error:
            log.exception("operation's step failed", pipeline=row.name, operation=operation.kind, reason=shown(error))
            return self._failed(operation, error, may_be_repeated=operation.attempts + 1 < MAX_UNFORESEEN)
        self._backoff.reset()
        if isinstance(result, Done):
            log.info("operation done", pipeline=row.name, operation=operation.kind, message=result.message)
            return _done(result)
        update = OperationUpdate(OperationState.RUNNING, result.message, result.memory, result.holds_connector)
        return Worked(update, result.holds_connector, result.again_in_s)

    def _failed(self, operation: OperationRecord, error: Exception, *, may_be_repeated: bool) -> Worked:
        now = self._clock()
        wait_s = self._backoff.failed(now, is_outage=isinstance(error, Transient)) - now
        if not may_be_repeated:
            return Worked(OperationUpdate(OperationState.FAILED, error=shown(error)), False, 0.0)
        update = OperationUpdate(OperationState.RUNNING, error=shown(error), next_attempt_in_s=wait_s)
        return Worked(update, operation.holds_connector, wait_s)


def _done(done: Done) -> Worked:
    update = OperationUpdate(OperationState.SUCCEEDED, done.message, removes_pipeline=done.removes_pipeline)
    return Worked(update, holds_connector=done.removes_pipeline, again_in_s=0.0)
