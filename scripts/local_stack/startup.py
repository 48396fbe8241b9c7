"""Bringing the parts up: each as soon as what it needs serves, and done only when its health check says so."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from local_stack.errors import NotReady, StackError
from local_stack.layout import Layout
from local_stack.parts.part import Part
from local_stack.private_files import write_private
from local_stack.supervision import Supervisor

POLL_S = 0.2
LOG_TAIL_LINES = 15
STOP_LAST = (("generator",), ("writer",), ("connect",), ("mongodb", "kafka", "seaweedfs", "postgres"))


@dataclass(frozen=True)
class Started:
    part: Part
    finding: str
    took_s: float


class Interrupted(Exception):
    """Another part failed, or the user pressed Ctrl-C: this one was not waited for any longer."""


def bring_up(
    layout: Layout, supervisor: Supervisor, parts: Sequence[Part], on_ready: Callable[[Started], None]
) -> None:
    """Start `parts` and wait until each is healthy, those that do not need each other at the same time.

    `on_ready` is called in this thread as each part gets there. Raises `StackError` with the part's last log lines
    when one does not; what has started keeps running, so that the next call goes on from there.
    """
    ready = {part.name: Event() for part in parts}
    stop = Event()
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        futures = [pool.submit(_bring_up_one, layout, supervisor, part, ready, stop) for part in parts]
        failure: Exception | None = None
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    on_ready(future.result())
                elif isinstance(error, Interrupted):
                    continue
                elif failure is None and isinstance(error, Exception):
                    failure = error
                    stop.set()
        finally:
            stop.set()
    if failure is not None:
        raise failure


def _bring_up_one(layout: Layout, supervisor: Supervisor, part: Part, ready: dict[str, Event], stop: Event) -> Started:
    for name in part.needs:
        while name in ready and not ready[name].wait(POLL_S):
            if stop.is_set():
                raise Interrupted
    begun = time.monotonic()
    if part.directory is not None:
        part.directory.mkdir(mode=0o700, exist_ok=True)
    for path, text in part.files.items():
        write_private(path, text)
    part.prepare()
    if part.command:
        supervisor.start(part.name)
    finding = _wait_until_healthy(layout, supervisor, part, stop)
    try:
        part.after_ready()
    except NotReady as reason:
        raise StackError(failure_report(layout, part, f"serves but cannot be set up: {reason}")) from None
    ready[part.name].set()
    return Started(part, finding, time.monotonic() - begun)


def _wait_until_healthy(layout: Layout, supervisor: Supervisor, part: Part, stop: Event) -> str:
    deadline = time.monotonic() + part.ready_within_s
    while True:
        try:
            return part.ready()
        except NotReady as reason:
            last = str(reason)
        if part.command and supervisor.processes()[part.name].state == "FATAL":
            raise StackError(failure_report(layout, part, "does not stay up"))
        if time.monotonic() > deadline:
            raise StackError(failure_report(layout, part, f"is not healthy after {part.ready_within_s:.0f} s: {last}"))
        if stop.wait(POLL_S):
            raise Interrupted


def failure_report(layout: Layout, part: Part, what: str) -> str:
    """What happened, the last lines of the part's log, and where the rest is."""
    if not part.command:
        return f"{part.name} {what}"
    log = layout.logs / f"{part.name}.log"
    lines = "\n".join(f"  {line}" for line in last_lines(log, LOG_TAIL_LINES))
    return f"{part.name} {what}\n{lines}\nthe whole log: {log}"


def last_lines(path: Path, count: int) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=count)]


def stop_order(names: Iterable[str]) -> list[list[str]]:
    """The parts in groups to stop one after the other: who writes before who is written to. Unknown ones go first."""
    remaining = set(names)
    groups = [sorted(remaining - {name for group in STOP_LAST for name in group})]
    groups += [[name for name in group if name in remaining] for group in STOP_LAST]
    return [group for group in groups if group]
