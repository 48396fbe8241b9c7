"""The operation `restart`: the connector and its tasks begin anew, and so do writers that had ended the pipeline."""

from __future__ import annotations

from collections.abc import Callable

from cdc_shared.connect.connect_client import ConnectClient
from control_plane.controller.operations.operation import Done, OperationContext, Progress
from control_plane.controller.systems import Specs


class RestartOperation:
    """Works restarts; no arguments."""

    def __init__(self, connect: Callable[[], ConnectClient], specs: Specs) -> None:
        self._connect = connect
        self._specs = specs

    def step(self, context: OperationContext) -> Progress | Done:
        """See `Operation.step`."""
        with self._connect() as connect:
            status = connect.status(context.pipeline)
            if not context.memory:
                if status is not None:
                    connect.restart(context.pipeline, only_failed=False)
                self._specs.publish(context.spec)
                message = "the connector starts anew" if status is not None else "there is no connector yet"
                return Progress({"asked": True}, message, holds_connector=False)
        if context.desired != "running":
            return Done(f"restarted; the pipeline is to be {context.desired}")
        if status is not None and status.running:
            return Done("the connector runs")
        return Progress(context.memory, f"waiting for the connector to run: {status}", holds_connector=False)
