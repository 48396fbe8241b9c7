"""Which single move brings a connector closer to what it should be. No connector is touched that is not a pipeline's.

Only what Connect says counts, nothing that was done before: whoever changed the connector meanwhile, and however often
the controller was killed, the next move follows from how things are.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView
from control_plane.models.pipeline import Desired

RUNNING: Final = "RUNNING"
PAUSED: Final = "PAUSED"
STOPPED: Final = "STOPPED"
FAILED: Final = "FAILED"


class Move(StrEnum):
    """What to ask Connect for."""

    CREATE = "create"
    CREATE_STOPPED = "create stopped"
    CONFIGURE = "configure"
    RESUME = "resume"
    PAUSE = "pause"
    STOP = "stop"
    RESTART = "restart"
    """Of what has failed: to be done with a back-off."""
    WAIT = "wait"
    """It is on its way."""
    NONE = "none"
    """It is as it should be."""


def next_move(target: Desired, view: ConnectorView | None, config: Mapping[str, str] | None) -> Move:
    """Return the move.

    Args:
        target: what the connector should be.
        view: the connector as Connect has it; None when there is none.
        config: what its configuration should be; None where it does not matter, which is on the way to STOPPED.
    """
    if view is None:
        # Its offsets outlive a connector: one that was deleted behind our back goes on where it was, or stays away.
        return {Desired.RUNNING: Move.CREATE, Desired.PAUSED: Move.CREATE_STOPPED, Desired.STOPPED: Move.NONE}[target]
    if target is not Desired.STOPPED and config is not None and dict(view.config) != dict(config):
        return Move.CONFIGURE
    status = view.status
    if target is Desired.STOPPED:
        if status.state != STOPPED:
            return Move.STOP
        return Move.WAIT if status.tasks else Move.NONE
    if target is Desired.PAUSED:
        if status.state != PAUSED:
            return Move.PAUSE
        return Move.NONE if is_quiet(status) else Move.WAIT
    if status.state in (STOPPED, PAUSED):
        return Move.RESUME
    if status.failure is not None:
        return Move.RESTART
    return Move.NONE if status.running else Move.WAIT


def is_quiet(status: ConnectorStatus) -> bool:
    """Whether no task of a paused or stopped connector reads any more; a failed one does not either."""
    return all(task.state in (PAUSED, FAILED) for task in status.tasks)
