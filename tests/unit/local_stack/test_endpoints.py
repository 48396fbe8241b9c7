"""`.local/endpoints.env`: the contract's names, readable by a shell and by dotenv alike."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from local_stack.endpoints import endpoint_values, read_endpoints, render_endpoints
from local_stack.errors import StackError
from local_stack.stack import Stack

pytestmark = pytest.mark.unit

CONTRACT = (
    *("MONGODB_URI", "KAFKA_BOOTSTRAP_SERVERS", "CONNECT_URL", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID"),
    *("AWS_SECRET_ACCESS_KEY", "DELTA_ROOT", "POSTGRES_DSN", "API_URL", "API_ADMIN_USER", "API_ADMIN_PASSWORD"),
    *(
        "PROMETHEUS_URL",
        "WRITER_URL",
        "WRITER_HTTP_PORT",
        "RECONCILIATION_URL",
        "CDC_SECRETS_FILE",
        "CDC_SECRETS_KEY_FILE",
        "CDC_DATA_KEY",
    ),
    "CONNECT_SECRETS_DIR",
)


def test_every_variable_of_the_contract_is_there(stack: Stack) -> None:
    values = endpoint_values(stack, prometheus=True)

    assert set(CONTRACT) <= set(values)
    assert values["DELTA_ROOT"] == "s3://cdc/delta"
    assert values["PROMETHEUS_URL"] == "http://127.0.0.1:9090"
    assert values["POSTGRES_DSN"].endswith("@127.0.0.1:5432/cdc")


def test_what_does_not_run_is_present_but_empty(stack: Stack) -> None:
    values = endpoint_values(stack, prometheus=False)

    empty = {name for name, value in values.items() if not value}
    assert empty == {"PROMETHEUS_URL"}


def test_tools_sign_in_as_the_first_admin_or_as_env_says(stack: Stack) -> None:
    own = {"API_ADMIN_USER": "root", "API_ADMIN_PASSWORD": "changed-since"}
    generated = endpoint_values(stack, prometheus=False)
    changed = endpoint_values(replace(stack, settings=replace(stack.settings, variables=own)), prometheus=False)

    assert (generated["API_URL"], generated["API_ADMIN_USER"]) == ("http://127.0.0.1:8000", "admin")
    assert generated["API_ADMIN_PASSWORD"] == stack.credentials.api_admin_password
    assert (changed["API_ADMIN_USER"], changed["API_ADMIN_PASSWORD"]) == ("root", "changed-since")


def test_dotenv_and_a_shell_read_what_was_written(stack: Stack, tmp_path: Path) -> None:
    values = endpoint_values(stack, prometheus=True) | {"DELTA_ROOT": "/a b/its $HOME #1"}
    path = tmp_path / "endpoints.env"
    path.write_text(render_endpoints(values))

    assert read_endpoints(path) == values
    shell = 'set -a; . "$0"; exec env -0'
    printed = subprocess.run(["sh", "-c", shell, str(path)], capture_output=True, text=True, check=True, env={}).stdout
    assert values.items() <= dict(line.split("=", 1) for line in printed.split("\0") if line).items()


def test_a_value_that_the_two_would_read_differently_is_refused(stack: Stack) -> None:
    values = endpoint_values(stack, prometheus=True) | {"MONGODB_URI": "mongodb://o'hara:hunter2@db/"}

    with pytest.raises(StackError, match="MONGODB_URI holds a single quote or a backslash: write it as %27") as caught:
        render_endpoints(values)
    assert "hunter2" not in str(caught.value)


def test_before_the_first_start_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="make up"):
        read_endpoints(tmp_path / "endpoints.env")
