"""What the commands say of themselves, of progress and of a lacking environment."""

import asyncio
from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner

from cdc_shared.models.reconciliation import Outcome
from reconciliation.command_line import EXIT_CODES, app
from reconciliation.database import host_of
from reconciliation.one_job import _awaited, progress_line
from reconciliation.plain_errors import plain_errors
from reconciliation.reconciler.progress import Phase, RunProgress

pytestmark = pytest.mark.unit


def test_help_names_the_exit_status_of_each_verdict() -> None:
    shown = " ".join(CliRunner().invoke(app, ["reconcile", "--help"]).output.split())
    assert EXIT_CODES == {Outcome.EQUAL: 0, Outcome.DIFFERENCES: 1, Outcome.UNDECIDED: 3}
    assert "0 all is equal, 1 there are differences, 2 an error, 3 it could not be decided, 130 interrupted" in shown
    shown = " ".join(CliRunner().invoke(app, ["serve", "--help"]).output.split())
    assert "Exit status: 0 stopped by a signal, 2 an error" in shown
    assert {"serve", "reconcile"} <= set(CliRunner().invoke(app, ["--help"]).output.split())


def test_a_lacking_environment_is_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    for command in (["serve"], ["reconcile", "shop"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "KAFKA_BOOTSTRAP_SERVERS is not set: set it to comma-separated host:port" in result.output


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (RunProgress(Phase.PREPARING), "preparing"),
        (
            RunProgress(Phase.SCANNING_SOURCE, 120_000, 200_000, 24_310.4),
            "scanning source: 120,000 of 200,000 (60 %), 24,310/s, 3.3 s left",
        ),
        (RunProgress(Phase.SETTLING, 5, None, 1.0), "settling: 5, 1/s"),
        (
            RunProgress(Phase.SCANNING_TABLE, 0, 10, throttled_by="the writer is behind"),
            "scanning table: 0 of 10 (0 %), the writer is behind",
        ),
    ],
)
def test_progress_is_one_line(progress: RunProgress, line: str) -> None:
    assert progress_line(progress) == line


def test_an_interrupt_is_one_plain_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, plain_errors():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_what_does_not_answer_soon_is_said_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def asked(until: Callable[[], bool]) -> int:
        async def answer() -> int:
            while not until():
                await asyncio.sleep(0)
            return 7

        return await _awaited("Kafka at broker:9092", answer(), said.append)

    assert asyncio.run(asked(lambda: True)) == 7
    assert said == []
    monkeypatch.setattr("reconciliation.one_job.SAY_AFTER_S", 0.01)
    assert asyncio.run(asked(lambda: bool(said))) == 7
    assert said == ["waits for Kafka at broker:9092"]


@pytest.mark.parametrize(
    ("dsn", "host"),
    [
        ("postgresql://cdc:secret@db.example.com:5432/cdc", "db.example.com:5432"),
        ("postgresql://cdc:s@cret@db:5432,db2:5432/cdc?password=secret", "db:5432,db2:5432"),
        ("postgresql://db", "db"),
        ("postgresql:///cdc?password=secret", "the default host"),
        ("secret", "the default host"),
    ],
)
def test_a_connection_string_is_shown_by_its_hosts_only(dsn: str, host: str) -> None:
    assert host_of(dsn) == host
