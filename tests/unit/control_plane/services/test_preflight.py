"""Checks run all at once, each within its time, and none before what it needs."""

import threading
import time

import anyio
import pytest

from cdc_shared.errors import Fatal, Transient
from control_plane.models.preflight import CheckOutcome, CheckResult
from control_plane.services.checks.check import Check, Finding, failed, ok, skipped, warning
from control_plane.services.preflight import run_checks

pytestmark = pytest.mark.unit


def run(*checks: Check) -> dict[str, CheckResult]:
    results = anyio.run(run_checks, checks)
    assert [each.name for each in results] == [check.name for check in checks]
    return {each.name: each for each in results}


def test_every_check_says_what_it_found() -> None:
    results = run(
        Check("a", lambda: ok("fine")), Check("b", lambda: warning("hm")), Check("c", lambda: failed("broken"))
    )
    assert [(each.outcome, each.message) for each in results.values()] == [
        (CheckOutcome.OK, "fine"),
        (CheckOutcome.WARNING, "hm"),
        (CheckOutcome.FAILED, "broken"),
    ]


def test_checks_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=5)

    def meet() -> Finding:
        together.wait()
        return ok("met")

    assert all(each.outcome is CheckOutcome.OK for each in run(*(Check(name, meet) for name in "abc")).values())


def test_what_needs_a_failed_check_is_skipped_and_so_is_what_needs_that() -> None:
    ran: list[str] = []

    def note(name: str, finding: Finding) -> Check:
        def check() -> Finding:
            ran.append(name)
            return finding

        return Check(name, check)

    def needing(name: str, *needs: str) -> Check:
        return Check(name, note(name, ok("")).run, needs)

    results = run(
        note("broken", failed("x")),
        note("nothing", skipped("x")),
        note("odd", warning("x")),
        needing("a", "broken"),
        needing("b", "a"),
        needing("c", "odd"),
        needing("d", "nothing"),
    )
    assert set(ran) == {"broken", "nothing", "odd", "c"}
    assert [results[name].outcome.value for name in "abcd"] == ["skipped", "skipped", "ok", "skipped"]
    assert results["b"].message == "makes sense only once a is ok"


def test_a_check_starts_when_what_it_needs_is_done() -> None:
    order: list[str] = []

    def first() -> Finding:
        time.sleep(0.05)
        order.append("first")
        return ok("")

    def second() -> Finding:
        order.append("second")
        return ok("")

    run(Check("first", first), Check("second", second, ("first",)))
    assert order == ["first", "second"]


def test_errors_become_failures_with_their_remedy() -> None:
    def away() -> Finding:
        raise Transient("Kafka is away")

    def wrong() -> Finding:
        raise Fatal("the password is wrong; correct it")

    def unexpected() -> Finding:
        raise ValueError("document {'card': '4111'}")

    results = run(Check("away", away, when_away="start it"), Check("wrong", wrong), Check("unexpected", unexpected))
    assert all(each.outcome is CheckOutcome.FAILED for each in results.values())
    assert results["away"].message == "Kafka is away; start it"
    assert results["wrong"].message == "the password is wrong; correct it"
    assert results["unexpected"].message.startswith("could not be checked: unexpected ValueError")
    assert "4111" not in results["unexpected"].message


def test_one_that_does_not_come_back_is_left_behind() -> None:
    release = threading.Event()

    def hang() -> Finding:
        release.wait(10)
        return ok("")

    async def timed() -> tuple[float, list[CheckResult]]:
        begun = time.monotonic()
        results = await run_checks(
            [Check("hang", hang, when_away="start it", time_limit_s=0.1), Check("after", hang, ("hang",))]
        )
        took_s = time.monotonic() - begun
        release.set()  # the loop's end waits for its threads
        return took_s, results

    took_s, (hung, after) = anyio.run(timed)
    assert took_s < 2
    assert (hung.outcome, hung.message) == (CheckOutcome.FAILED, "no answer within 0.1 s; start it")
    assert hung.duration_ms >= 100
    assert after.outcome is CheckOutcome.SKIPPED
