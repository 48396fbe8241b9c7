"""The commands of the control plane: what is missing is named, without a traceback and without a value."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from control_plane.command_line import app

pytestmark = pytest.mark.unit

COMPLETE = {
    "POSTGRES_DSN": "postgresql://cdc:hunter2@nowhere/cdc",
    "KAFKA_BOOTSTRAP_SERVERS": "nowhere:9092",
    "CONNECT_URL": "http://nowhere:8083",
    "CDC_DATA_KEY": "secret:cdc-data-key",
}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"POSTGRES_DSN": ""}, "POSTGRES_DSN is not set: set it to Postgres"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "hunter2"}, "KAFKA_BOOTSTRAP_SERVERS is not valid"),
        ({"API_RATE_LIMIT": "hunter2"}, "API_RATE_LIMIT is not valid"),
        ({"API_PORT": "hunter2"}, "API_PORT is not valid"),
        ({"API_CORS_ORIGINS": '["*"]'}, "name each origin"),
    ],
)
def test_what_is_not_set_rightly_is_named_with_its_remedy(given: dict[str, str], reason: str) -> None:
    done = CliRunner().invoke(app, ["serve"], env=COMPLETE | given)

    assert done.exit_code == 1
    assert done.output.startswith("error: the environment is not complete: ")
    assert reason in done.output
    assert "hunter2" not in done.output


@pytest.mark.parametrize("command", ["serve", "migrate", "create-admin", "openapi"])
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])

    assert done.exit_code == 0
    assert len(done.output) > 200
