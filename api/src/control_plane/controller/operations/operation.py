"""What an operation is: work on one pipeline that takes several steps and outlives the process that began it.

The controller takes an operation's row, calls `step` until it is `Done`, and stores what a step returns before it calls
the next one. A step may be run again from what was stored last: after a crash, after a change of leader, after an
error. So it looks at how things are, does what is missing, and does no harm when all is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cdc_shared.models.common import PipelineSpec


@dataclass(frozen=True, slots=True)
class OperationContext:
    """What a step is told."""

    spec: PipelineSpec
    desired: str
    """What the pipeline should be: running, paused or stopped."""
    arguments: Mapping[str, Any]
    """What was asked for: the row's arguments, checked when they came."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the step before returned as `Progress.memory`; empty at the first."""
    attempts: int = 0
    """How many times in a row this step has failed."""

    @property
    def pipeline(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Progress:
    """More steps are needed."""

    memory: Mapping[str, Any]
    """What the next step needs to know, as JSON."""
    message: str
    """What is going on, for people."""
    holds_connector: bool = True
    """Whether the controller must leave the connector alone meanwhile. False once the operation only waits for what a
    connector that runs does: then a connector that fails is restarted, and one that was changed is corrected. Before
    the first step has returned it is left alone."""
    again_in_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do."""

    message: str
    removes_pipeline: bool = False
    """Whether the pipeline's row goes as well."""


class Operation(Protocol):
    """One kind of operation. One object serves all pipelines, in several threads: what it knows is in the context."""

    def step(self, context: OperationContext) -> Progress | Done:
        """Do the next piece of it, in a worker thread; it may block on systems for seconds, not for minutes.

        Raises:
            Transient: to be tried again later, after a back-off, from the same memory; without end.
            Fatal: it has failed, and says why. The controller goes on with making the pipeline what it should be.
        """
        ...
