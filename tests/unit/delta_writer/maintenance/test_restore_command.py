"""What `delta-writer restore` understands."""

from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

import delta_writer.command_line as command_line
from cdc_shared.errors import Fatal
from delta_writer.maintenance.restore_command import LEAVE_WITHIN_S, LOOK_EVERY_S, await_no_writer

pytestmark = pytest.mark.unit


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[Any]:
    """The targets that the command asked for."""
    targets: list[Any] = []
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    monkeypatch.setattr(command_line, "restore_collection", lambda *args, **_: targets.append(args[4]))
    (tmp_path / "spec.yaml").write_text("{name: shop, source: {connection: env:X, database: shop}}")
    monkeypatch.chdir(tmp_path)
    return targets


def run(*options: str, pipeline: str = "shop") -> Any:
    return CliRunner().invoke(command_line.app, ["restore", pipeline, "orders", "--spec", "spec.yaml", *options])


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (["--version", "0"], 0),
        (["--as-of", "2026-01-31T12:00:00Z"], datetime(2026, 1, 31, 12, tzinfo=UTC)),
        (["--as-of", "2026-01-31 13:00+01:00"], datetime(2026, 1, 31, 12, tzinfo=UTC)),
        (["--as-of", "2026-01-31T12:00"], datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_version_or_a_time(asked, options, target):
    assert run(*options).exit_code == 0
    assert asked == [target]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--version or --as-of"),
        (["--version", "1", "--as-of", "2026-01-31"], "not both"),
        (["--as-of", "yesterday"], "2026-01-31T12:00:00Z"),
    ],
)
def test_anything_else_is_explained(asked, options, says):
    result = run(*options)
    assert (result.exit_code, asked) == (2, [])
    assert says in " ".join(result.output.replace("│", "").split())


def test_the_spec_of_another_pipeline_is_refused(asked):
    result = run("--version", "1", pipeline="other")
    assert (result.exit_code, asked) == (1, [])
    assert "is the spec of shop, not of other" in result.output


@pytest.mark.parametrize(("leaves_after_s", "lines"), [(0.0, 0), (LEAVE_WITHIN_S - LOOK_EVERY_S, 1)])
def test_writers_that_leave_soon_are_waited_for(leaves_after_s, lines):
    now, said = [0.0], []

    def running() -> list[str]:
        return ["writer on host"] if now[0] < leaves_after_s else []

    await_no_writer("shop", running, said.append, lambda: now[0], lambda s: now.append(now.pop() + s))
    assert (now[0], len(said)) == (leaves_after_s, lines)


def test_writers_that_stay_are_named_after_a_while():
    now, said = [0.0], []
    with pytest.raises(Fatal, match=r"1 writer runs pipeline shop \(writer on host\).*delta-writer unpublish shop"):
        await_no_writer(
            "shop", lambda: ["writer on host"], said.append, lambda: now[0], lambda s: now.append(now.pop() + s)
        )
    assert (now[0], len(said)) == (LEAVE_WITHIN_S, 1)
