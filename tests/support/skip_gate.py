"""Lets only the tests on a list be skipped: any other skip fails the run, and the run ends by naming every skip."""

from __future__ import annotations

from pathlib import Path

import pytest


class SkipGate:
    """A pytest plugin. The list has one test a line: its node id, or a file or prefix of it, a blank, the reason."""

    def __init__(self, allowed_file: Path) -> None:
        lines = (line.strip() for line in allowed_file.read_text(encoding="utf-8").splitlines())
        self._allowed = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[report.nodeid] = _reason(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped[report.nodeid] = _reason(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._not_allowed() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._skipped:
            return
        terminalreporter.section("tests that were skipped")
        for nodeid, reason in sorted(self._skipped.items()):
            allowed = nodeid not in self._not_allowed()
            verdict = "allowed" if allowed else "NOT ALLOWED: the run fails"
            terminalreporter.line(f"{nodeid}: {reason} ({verdict})", green=allowed, red=not allowed)

    def _not_allowed(self) -> set[str]:
        return {nodeid for nodeid in self._skipped if not any(nodeid.startswith(prefix) for prefix in self._allowed)}


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    detail = report.longrepr
    return str(detail[2] if isinstance(detail, tuple) else detail).removeprefix("Skipped: ")
