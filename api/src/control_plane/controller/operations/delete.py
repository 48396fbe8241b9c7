"""The operation `delete`: everything that a pipeline has outside goes, except what is to be kept, and then its row.

Nobody writes any more once connector and writers have left, and only then is taken away what they would write to.
With `keep_offsets` everything stays that a pipeline made again under this name needs to go on where this one ended:
the connector's offsets, the topics and what writers have committed. Otherwise such a pipeline begins with a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec
from control_plane.controller.operations.connector_offsets import forget_of_any
from control_plane.controller.operations.operation import Done, OperationContext, Progress
from control_plane.controller.systems import ConnectorSetup

WAIT_S: Final = 1.0
FORCED_AFTER: Final = 3
"""Failures of what `force` then does without."""
OPTIONAL: Final = {
    "offsets": "the connector's offsets (a pipeline made again under this name goes on from them: resync that one)",
    "heartbeat": "the watermark's document in the source",
}
"""What `force` may leave, by the step that removes it: it needs the source, or a connector that can be made."""

log = get_logger(__name__)


class Published(Protocol):
    """The topic of specs."""

    def withdraw(self, name: str) -> None:
        """Take the spec back; of an unknown one, do nothing."""
        ...


class Remains(Protocol):
    """What is left of a pipeline once nobody runs it. Everything may be repeated, and raises `Transient` or `Fatal`."""

    def remove_secrets(self, name: str) -> None: ...

    def writers(self, name: str) -> list[str]:
        """Who still reads the pipeline's topics."""
        ...

    def tables(self, spec: PipelineSpec) -> list[str]:
        """The URLs of its tables."""
        ...

    def remove_table(self, url: str) -> bool:
        """Remove it for a few seconds; whether nothing is left."""
        ...

    def remove_dead_letters(self, spec: PipelineSpec) -> bool:
        """Remove large dead letters for a few seconds; whether nothing is left."""
        ...

    def remove_reconciliation_reports(self, spec: PipelineSpec) -> bool:
        """Remove them from the lake for a few seconds, for they show documents; whether nothing is left."""
        ...

    def remove_topics(self, spec: PipelineSpec) -> None: ...

    def remove_group(self, name: str) -> None: ...

    def remove_heartbeat(self, spec: PipelineSpec) -> None:
        """Remove its document in the source's `cdc_heartbeat`."""
        ...

    def forget_reports(self, name: str) -> None: ...

    def forget_rules(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _At:
    """Where a deletion is."""

    context: OperationContext
    memory: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteOperation:
    """Works deletions. Its arguments: `keep_tables`, `keep_offsets`, `force`."""

    connect: Callable[[], ConnectClient]
    setup: ConnectorSetup
    specs: Published
    remains: Remains

    def step(self, context: OperationContext) -> Progress | Done:
        """See `Operation.step`."""
        steps = _steps(context)
        at = _At(context, {"step": steps[0], "notes": [], **context.memory})
        step = at.memory["step"]
        waits = self._take(at, step)
        if waits is not None:
            return Progress(at.memory, waits, again_in_s=0.0 if step == "tables" else WAIT_S)
        rest = steps[steps.index(step) + 1 :]
        if not rest:
            return Done("; ".join(["deleted", *at.memory["notes"]]), removes_pipeline=True)
        return Progress({**at.memory, "step": rest[0]}, _TELLS[rest[0]], again_in_s=0.0)

    def _take(self, at: _At, step: str) -> str | None:
        """Take the step; return what it waits for, None when it is done or, with `force`, can be done without."""
        take: Callable[[_At], str | None] = getattr(self, f"_{step}")
        try:
            return take(at)
        except CdcError as error:
            if step not in OPTIONAL:
                raise
            if not at.context.arguments.get("force"):
                if isinstance(error, Transient):
                    raise
                raise Fatal(f"{error}; or delete the pipeline with force, which leaves {OPTIONAL[step]}") from error
            if isinstance(error, Transient) and self._counts_up(at, step) < FORCED_AFTER:
                return f"tried again: {error}"
            log.warning("a forced deletion leaves something", pipeline=at.context.pipeline, reason=str(error))
            at.memory["notes"] = [*at.memory["notes"], f"{OPTIONAL[step]} left: {error}"]
            return None

    def _counts_up(self, at: _At, step: str) -> int:
        """How many times the step has failed now. That Kafka Connect is away does not count, it raises `Transient`:
        deleting the connector has to wait for it all the same.
        """
        if step == "offsets":
            with self.connect() as connect:
                connect.status(at.context.pipeline)
        failures = dict(at.memory.get("failures", {}))
        failures[step] = failures.get(step, 0) + 1
        at.memory["failures"] = failures
        return int(failures[step])

    # Each returns None when it is done, else what it waits for.

    def _offsets(self, at: _At) -> str | None:
        with self.connect() as connect:
            return forget_of_any(connect, self.setup, at.context, at.memory)

    def _connector(self, at: _At) -> str | None:
        with self.connect() as connect:
            if connect.is_somebody_elses(at.context.pipeline):
                return None
            connect.delete(at.context.pipeline)
            if connect.status(at.context.pipeline) is not None:
                return "waiting for Kafka Connect to forget the connector"
        return None

    def _spec(self, at: _At) -> str | None:
        self.remains.remove_secrets(at.context.pipeline)
        self.specs.withdraw(at.context.pipeline)
        return None

    def _writers(self, at: _At) -> str | None:
        running = self.remains.writers(at.context.pipeline)
        return f"waiting for the writers to leave: {', '.join(running)}" if running else None

    def _tables(self, at: _At) -> str | None:
        """Which tables there are is kept: of one that is half gone nobody could tell whose it was."""
        tables = at.memory.get("tables")
        if tables is None:
            tables = self.remains.tables(at.context.spec)
        elif tables and self.remains.remove_table(tables[0]):
            tables = tables[1:]
        at.memory["tables"] = tables
        if tables:
            return f"{len(tables)} table{'s' * (len(tables) != 1)} to drop"
        if not self.remains.remove_dead_letters(at.context.spec):
            return "removing dead letters"
        return None if self.remains.remove_reconciliation_reports(at.context.spec) else "removing reports"

    def _topics(self, at: _At) -> str | None:
        self.remains.remove_topics(at.context.spec)
        self.remains.remove_group(at.context.pipeline)
        return None

    def _heartbeat(self, at: _At) -> str | None:
        self.remains.remove_heartbeat(at.context.spec)
        return None

    def _records(self, at: _At) -> str | None:
        """Rows name the version of the rules that made them: with the tables, the rules stay."""
        self.remains.forget_reports(at.context.pipeline)
        if not at.context.arguments.get("keep_tables", True):
            self.remains.forget_rules(at.context.pipeline)
        return None


_TELLS: Final = {
    "offsets": "the connector forgets how far it has read",
    "connector": "deleting the connector",
    "spec": "taking the spec back",
    "writers": "waiting for the writers to leave",
    "tables": "dropping the tables",
    "topics": "removing the topics",
    "heartbeat": "removing the watermark's document from the source",
    "records": "forgetting what was reported",
}


def _steps(context: OperationContext) -> list[str]:
    left_out = set()
    if context.arguments.get("keep_offsets", False):
        left_out |= {"offsets", "topics"}
    if context.arguments.get("keep_tables", True):
        left_out.add("tables")
    return [step for step in _TELLS if step not in left_out]
