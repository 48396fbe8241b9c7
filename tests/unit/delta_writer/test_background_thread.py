"""A thread whose work may hang, and which must then hold neither who closes it nor the process."""

import subprocess
import sys
import threading

import pytest

from delta_writer.background_thread import BackgroundThread

pytestmark = pytest.mark.unit

HANGS = """
import threading
from delta_writer.background_thread import BackgroundThread
thread, started = BackgroundThread("hangs"), threading.Event()
thread.submit(lambda: (started.set(), threading.Event().wait()))
started.wait()
thread.shutdown()
print("closed")
"""


def test_calls_are_made_in_order_and_what_they_raise_is_kept():
    thread, made = BackgroundThread("t"), []
    futures = [thread.submit(made.append, number) for number in range(5)]
    failing = thread.submit(int, "no number")
    thread.shutdown(wait=True)
    assert made == list(range(5))
    assert all(future.done() for future in futures)
    with pytest.raises(ValueError, match="no number"):
        failing.result()
    with pytest.raises(RuntimeError):
        thread.submit(made.append, 5)


def test_shutting_down_does_not_wait_for_what_hangs():
    thread, started, release = BackgroundThread("t"), threading.Event(), threading.Event()
    hanging = thread.submit(lambda: (started.set(), release.wait()))
    queued = thread.submit(int)
    assert started.wait(30)
    thread.shutdown(cancel_futures=True)
    assert not hanging.done()
    assert queued.cancelled()
    release.set()
    thread.shutdown(wait=True)
    assert hanging.done()


def test_the_interpreter_ends_while_a_call_hangs():
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (0, "closed\n"), ended.stderr
