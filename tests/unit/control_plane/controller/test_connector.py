"""Which move follows from how a connector is."""

from __future__ import annotations

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView, TaskStatus
from control_plane.controller.connector import Move, next_move
from control_plane.models.pipeline import Desired

pytestmark = pytest.mark.unit

CONFIG = {"a": "1"}


def view(state: str, *tasks: str, config: dict[str, str] | None = None) -> ConnectorView:
    told = tuple(TaskStatus(n, each, "") for n, each in enumerate(tasks))
    return ConnectorView(config or CONFIG, ConnectorStatus("shop", state, "", told))


@pytest.mark.parametrize(
    ("seen", "running", "paused", "stopped"),
    [
        (None, Move.CREATE, Move.CREATE_STOPPED, Move.NONE),
        (view("RUNNING", "RUNNING"), Move.NONE, Move.PAUSE, Move.STOP),
        (view("RUNNING"), Move.WAIT, Move.PAUSE, Move.STOP),
        (view("RUNNING", "RUNNING", "UNASSIGNED"), Move.WAIT, Move.PAUSE, Move.STOP),
        (view("RUNNING", "RUNNING", "FAILED"), Move.RESTART, Move.PAUSE, Move.STOP),
        (view("FAILED"), Move.RESTART, Move.PAUSE, Move.STOP),
        (view("UNASSIGNED"), Move.WAIT, Move.PAUSE, Move.STOP),
        (view("PAUSED", "PAUSED"), Move.RESUME, Move.NONE, Move.STOP),
        (view("PAUSED", "RUNNING"), Move.RESUME, Move.WAIT, Move.STOP),
        (view("PAUSED", "FAILED"), Move.RESUME, Move.NONE, Move.STOP),
        (view("STOPPED"), Move.RESUME, Move.PAUSE, Move.NONE),
        (view("STOPPED", "RUNNING"), Move.RESUME, Move.PAUSE, Move.WAIT),
        (view("RUNNING", "RUNNING", config={"a": "2"}), Move.CONFIGURE, Move.CONFIGURE, Move.STOP),
        (view("STOPPED", config={"a": "2"}), Move.CONFIGURE, Move.CONFIGURE, Move.NONE),
    ],
)
def test_the_next_move(seen: ConnectorView | None, running: Move, paused: Move, stopped: Move) -> None:
    assert next_move(Desired.RUNNING, seen, CONFIG) is running
    assert next_move(Desired.PAUSED, seen, CONFIG) is paused
    assert next_move(Desired.STOPPED, seen, None) is stopped


def test_an_unknown_configuration_disturbs_nothing() -> None:
    assert next_move(Desired.RUNNING, view("RUNNING", "RUNNING", config={"a": "2"}), None) is Move.NONE
