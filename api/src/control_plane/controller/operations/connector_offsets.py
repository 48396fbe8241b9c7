"""Having Kafka Connect forget how far a connector has read, so that it begins with a snapshot."""

from __future__ import annotations

from typing import Any, Final

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import Fatal, Transient
from control_plane.controller.operations.operation import OperationContext
from control_plane.controller.systems import ConnectorSetup

STOP_TIMEOUT_S: Final = 10.0
MAX_REFUSALS: Final = 20
"""Connect refuses to forget offsets, as it would a wrong request, until the last task's producer is fenced out."""

_MADE_AGAIN: Final = "is_made_again"


def stop_and_forget(connect: ConnectClient, context: OperationContext) -> None:
    """Stop the connector and have its offsets forgotten. May be repeated. Raises `Transient` or `Fatal`."""
    if connect.is_somebody_elses(context.pipeline):
        raise Fatal(f"Kafka Connect has a connector {context.pipeline} that is not this pipeline's: it is left alone")
    connect.stop(context.pipeline, STOP_TIMEOUT_S)
    try:
        connect.forget_offsets(context.pipeline, STOP_TIMEOUT_S)
    except Fatal as error:
        if context.attempts >= MAX_REFUSALS:
            raise
        raise Transient(str(error)) from error


def forget_of_any(
    connect: ConnectClient, setup: ConnectorSetup, context: OperationContext, memory: dict[str, Any]
) -> str | None:
    """The same for a connector that may be gone; return what is waited for, None when it is done.

    Offsets outlive their connector, and Connect takes no call for one that is not there: it is made once more, stopped.
    `memory` is the operation's, and is kept up to date.
    """
    name = context.pipeline
    if connect.is_somebody_elses(name):  # ours never was
        return None
    if connect.status(name) is None:
        if not memory.get(_MADE_AGAIN):
            setup.prepare(context.spec)
            connect.create_stopped(name, setup.config(context.spec))
            memory[_MADE_AGAIN] = True
        return "waiting for Kafka Connect to know the connector"
    stop_and_forget(connect, context)
    return None
