"""What the parts say when they are asked to do their work: the table of `make status`."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.table import Table

from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.processes import memory_bytes
from local_stack.supervision import ProcessInfo

POLL_S = 0.5
MIB = 1024 * 1024


@dataclass(frozen=True)
class PartStatus:
    part: Part
    healthy: bool
    finding: str
    process: ProcessInfo | None
    """None: not ours to run, or supervisord is not up."""
    memory_bytes: int


def part_statuses(parts: Sequence[Part], processes: dict[str, ProcessInfo]) -> list[PartStatus]:
    """Ask every part at the same time; takes as long as the slowest check."""
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        return list(pool.map(lambda part: _status_of(part, processes.get(part.name)), parts))


def settled_statuses(
    parts: Sequence[Part], processes: Callable[[], dict[str, ProcessInfo]], within_s: float
) -> list[PartStatus]:
    """The statuses once all are healthy, or as they are after `within_s`: connectors take a moment after a start."""
    deadline = time.monotonic() + within_s
    while True:
        statuses = part_statuses(parts, processes())
        if all(status.healthy for status in statuses) or time.monotonic() > deadline:
            return statuses
        time.sleep(POLL_S)


def _status_of(part: Part, process: ProcessInfo | None) -> PartStatus:
    running = process is not None and process.pid > 0
    if part.command and not running:
        finding = "not running" if process is None else f"not running ({process.state.lower()})"
        return PartStatus(part, healthy=False, finding=finding, process=process, memory_bytes=0)
    try:
        finding, healthy = (part.healthy or part.ready)(), True
    except NotReady as reason:
        finding, healthy = str(reason), False
    memory = memory_bytes(process.pid) if process is not None and running else 0
    return PartStatus(part, healthy, finding, process, memory)


def status_table(statuses: Sequence[PartStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("part", "state", "endpoint", "pid", "uptime", "memory", "finding"):
        table.add_column(name, justify="right" if name in ("pid", "uptime", "memory") else "left", overflow="fold")
    for status in statuses:
        process = status.process
        running = process is not None and process.pid > 0
        table.add_row(
            status.part.name,
            "[green]healthy[/]" if status.healthy else "[red]not healthy[/]",
            status.part.endpoint,
            str(process.pid) if process is not None and running else "",
            duration(process.uptime_s) if process is not None and running else "",
            f"{status.memory_bytes / MIB:.0f} MB" if status.memory_bytes else "",
            status.finding,
        )
    total = sum(status.memory_bytes for status in statuses)
    if total:
        table.add_row("total", "", "", "", "", f"{total / MIB:.0f} MB", "")
    return table


def duration(seconds: int) -> str:
    """`42 s`, `3 min`, `5 h 12 min`, `2 d 3 h`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if minutes < 1:
        return f"{seconds} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
