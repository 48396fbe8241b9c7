"""The guards of the test suite itself: no socket in unit tests, no skip that is not on the list."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from skip_gate import SkipGate
from stack_endpoints import REQUIRED, Stack, StackNotUp
from trial_pipeline import difference, trial_name

from cdc_shared.models.common import SourceSpec

pytestmark = pytest.mark.unit
pytest_plugins = ["pytester"]


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_unit_test_cannot_connect(method: str) -> None:
    with socket.socket() as opened, pytest.raises(AssertionError, match="a unit test connects"):
        getattr(opened, method)(("127.0.0.1", 9))


def test_event_loops_work_in_unit_tests() -> None:
    async def answer() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: 42)

    assert asyncio.run(answer()) == 42


def _run(pytester: pytest.Pytester, allowed: str) -> pytest.RunResult:
    allowed_file = pytester.path / "allowed.txt"
    allowed_file.write_text(allowed)
    pytester.makepyfile(test_one="import pytest\ndef test_skipped(): pytest.skip('no Spark')\ndef test_passes(): pass")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[SkipGate(allowed_file)])


def test_a_skip_that_is_not_on_the_list_fails_the_run(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "# none\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*test_one.py::test_skipped: no Spark (NOT ALLOWED: the run fails)*"])


def test_a_skip_on_the_list_is_named_and_passes(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "test_one.py::test_skipped Spark is large\n")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*test_one.py::test_skipped: no Spark (allowed)*"])


def test_the_environment_wins_over_the_endpoints_file(tmp_path: Path) -> None:
    written = tmp_path / "endpoints.env"
    written.write_text("".join(f"{name}=s3://bucket/delta\n" for name in REQUIRED))
    stack = Stack.from_environment({"MONGODB_URI": "mongodb://elsewhere", "S3_ENDPOINT": ""}, written)
    assert stack.mongodb_uri == "mongodb://elsewhere"
    assert stack.s3_endpoint == "s3://bucket/delta"
    assert stack.tests_root == "s3://bucket/tests"


def test_a_missing_stack_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StackNotUp, match=r"MONGODB_URI.*make up"):
        Stack.from_environment({}, tmp_path / "absent.env")


def test_secrets_do_not_show() -> None:
    secrets = Path("/secrets")
    stack = Stack(
        "mongodb://u:geheim@h", "k:1", "http://c", secrets, "http://s", "key", "geheim", "r", "s3://b/d", "http://w"
    )
    assert "geheim" not in repr(stack)
    assert "geheim" not in repr(stack.object_store)


def test_a_difference_names_what_is_missing_extra_and_different() -> None:
    told = difference({"1": b"{}", "2": b"{}", "3": b"{}"}, {"2": b"{}", "3": b'{"a":1}', "4": b"{}"})
    for part in ("1 missing:\n  1", "1 extra:\n  4", "1 different:\n  3"):
        assert part in told
    assert difference({"1": b"{}"}, {"1": b"{}"}) == ""


def test_trial_names_are_unique_pipeline_and_database_names() -> None:
    name = "test_something[with-Ünusual] and a very long tail of parameters"
    first, second = trial_name(name), trial_name(name)
    assert first != second
    for each in (first, second):
        assert len(each) <= 41
        SourceSpec(connection="env:MONGODB_URI", database=each)
