"""A run's threads hear of what is wanted: at once, whatever they wait for."""

import threading

import pytest

from reconciliation.reconciler.progress import Cancelled, Stopped
from reconciliation.scheduler.run_control import RunControl

pytestmark = pytest.mark.unit

TIMEOUT_S = 5.0


def ended_by(control: RunControl, wait: str) -> list[type[BaseException] | None]:
    """What `check` or `sleep` raises in a thread that waits there when the control is ended."""
    ended: list[type[BaseException] | None] = []
    waits = threading.Event()

    def work() -> None:
        waits.set()
        try:
            if wait == "check":
                control.check()
            else:
                control.sleep(60)
        except (Cancelled, Stopped) as error:
            ended.append(type(error))
        else:
            ended.append(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert waits.wait(TIMEOUT_S)
    control.cancel()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    return ended


def test_a_run_that_is_held_waits_and_then_goes_on() -> None:
    control, passed = RunControl(), threading.Event()
    control.hold("the writer is behind")
    assert control.held_by == "the writer is behind"

    def work() -> None:
        control.check()
        passed.set()

    threading.Thread(target=work, daemon=True).start()
    assert not passed.wait(0.05)
    control.hold(None)
    assert passed.wait(TIMEOUT_S)


@pytest.mark.parametrize("wait", ["check", "sleep"])
def test_whoever_waits_hears_of_the_end(wait: str) -> None:
    control = RunControl()
    control.hold("the writer is behind")
    assert ended_by(control, wait) == [Cancelled]


def test_a_run_that_was_cancelled_is_not_merely_stopped() -> None:
    control = RunControl()
    control.stop()
    with pytest.raises(Stopped):
        control.check()
    control.cancel()
    control.stop()
    with pytest.raises(Cancelled):
        control.check()
