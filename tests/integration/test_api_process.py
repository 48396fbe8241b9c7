"""The control plane as it is run: its command, its client over HTTP, its end, and what it says when it cannot start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_database import TrialDatabase
from api_process import ADMIN, PASSWORD, ApiProcess
from stack_endpoints import Stack

from cdc_shared.models.common import SourceSpec
from control_plane.client.control_plane import ControlPlane
from control_plane.client.errors import Conflict, Forbidden, Invalid, NotFound, Stale, Unauthorized
from control_plane.client.session import Password, ServiceToken
from control_plane.models.pipeline import PipelineConfig, State
from control_plane.models.service_tokens import NewServiceToken
from control_plane.models.users import NewUser, UserChange
from control_plane.permissions import Permission, Role

pytestmark = pytest.mark.integration

NEW_PASSWORD = "another-Test-passphrase-8"
COMMAND_TIMEOUT_S = 60
PROMPT_S = 5.0
CONFIG = PipelineConfig(name="trial-shop", source=SourceSpec(connection="env:MONGODB_URI", database="shop"))


@pytest.fixture
def process(stack: Stack, database: TrialDatabase, tmp_path: Path) -> Iterator[ApiProcess]:
    started = ApiProcess(stack, database, tmp_path)
    yield started
    started.kill()


def command(*arguments: str, environment: dict[str, str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "control_plane", *arguments],
        env={"PATH": os.environ["PATH"]} | environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )


def test_the_client_does_what_the_api_offers(process: ApiProcess) -> None:
    with ControlPlane.open(process.url, Password(ADMIN, PASSWORD)) as api:
        created = api.users.create(NewUser(name="maria", roles=frozenset({Role.ANALYST})))
        assert api.users.change(created.id, UserChange(roles=frozenset({Role.OPERATOR}))).roles == [Role.OPERATOR]
        assert [user.name for user in api.users.list()] == [ADMIN, "maria"]

        assert api.pipelines.create(CONFIG).status.state is State.STOPPED
        with pytest.raises(Conflict):
            api.pipelines.create(CONFIG)
        etag = api.pipelines.tagged(CONFIG.name).etag
        faster = CONFIG.model_copy(update={"batch": CONFIG.batch.model_copy(update={"max_seconds": 0.5})})
        assert api.pipelines.replace(faster, etag).version == 2
        with pytest.raises(Stale):
            api.pipelines.replace(CONFIG, etag)
        assert api.pipelines.apply(faster).version == 2
        assert [each.name for each in api.pipelines.list(state="stopped")] == [CONFIG.name]
        with pytest.raises(NotFound):
            api.pipelines.get("nobodys")
        with pytest.raises(Invalid):
            api.pipelines.list(state="dancing").__next__()
        assert api.rules.get(CONFIG.name).pipeline_version == 2

        reader = NewServiceToken(name="reader", permissions=frozenset({Permission.PIPELINES_READ}))
        token = api.service_tokens.create(reader)
        with ControlPlane.open(process.url, ServiceToken(token.token)) as machine:
            assert machine.pipelines.get(CONFIG.name).spec == faster
            with pytest.raises(Forbidden):
                machine.pipelines.start(CONFIG.name)
            api.service_tokens.revoke(token.id)
            with pytest.raises(Unauthorized):
                machine.pipelines.get(CONFIG.name)

        actions = [entry.action for entry in api.audit.list(resource=CONFIG.name, outcome="allowed")]
        assert {"pipeline.create", "pipeline.change", "pipeline.read"} <= set(actions)
        begun = datetime.now(UTC) - timedelta(hours=1)
        exported = list(api.audit.export("jsonl", since=begun, action="pipeline.create"))
        assert len(exported) == 2  # the one that was refused as well
        assert list(api.audit.list(until=begun)) == []
        assert api.audit.verify().intact


def test_a_client_stays_signed_in_until_the_api_ends_which_it_does_cleanly_and_soon(process: ApiProcess) -> None:
    host, _, port = process.url.removeprefix("http://").rpartition(":")
    with ControlPlane.open(process.url, Password(ADMIN, PASSWORD)) as api, socket.create_connection((host, int(port))):
        api.account.change_password(PASSWORD, NEW_PASSWORD)
        assert api.account.me().name == ADMIN
        api.account.sign_out()
        assert api.account.me().name == ADMIN
        with ControlPlane.open(process.url, Password(ADMIN, PASSWORD)) as former, pytest.raises(Unauthorized):
            former.account.me()

        begun_s = time.monotonic()
        process.stop()  # although two connections are open

    assert time.monotonic() - begun_s < PROMPT_S
    assert "Traceback" not in process.log_file.read_text()


def test_who_cannot_sign_in_any_more_gets_back_in_by_the_command_line(
    process: ApiProcess, database: TrialDatabase
) -> None:
    with ControlPlane.open(process.url, Password(ADMIN, PASSWORD)) as api:
        api.account.me()
        done = command("create-admin", environment={"POSTGRES_DSN": database.dsn}, text=f"{NEW_PASSWORD}\n")
        with pytest.raises(Unauthorized):  # that session has ended, and the password with it
            api.account.me()

    assert done.returncode == 0, done.stderr
    assert NEW_PASSWORD not in done.stdout + done.stderr
    with ControlPlane.open(process.url, Password(ADMIN, NEW_PASSWORD)) as api:
        (entry,) = api.audit.list(action="user.reset_password")
        assert entry.user is not None
        assert entry.user.endswith("(shell)")
        assert entry.resource == ADMIN
        assert api.audit.verify().intact


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"API_PORT": "{taken}"}, "the API cannot listen on 127.0.0.1:{taken} (Address already in use): stop what"),
        ({"POSTGRES_DSN": "postgresql://cdc:hunter2@127.0.0.1:1/cdc"}, "Postgres does not answer"),
    ],
    ids=["port taken", "no postgres"],
)
def test_what_keeps_it_from_starting_is_said_in_one_line(
    stack: Stack, database: TrialDatabase, environment: dict[str, str], reason: str
) -> None:
    own = {"POSTGRES_DSN": database.dsn, "API_PORT": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = {name: value.format(taken=port) for name, value in environment.items()}
        done = command("serve", environment=stack.writer_environment | own | given)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {reason.format(taken=port)}")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
