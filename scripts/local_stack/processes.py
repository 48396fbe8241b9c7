"""The stack's operating-system processes: finding what a killed supervisord left behind, ending it, memory in use."""

import contextlib
import signal
from collections.abc import Iterable

import psutil

from local_stack.layout import Layout
from local_stack.supervision import MARKER

GRACE_S = 20.0
KILL_WAIT_S = 5.0


def stray_processes(layout: Layout) -> list[psutil.Process]:
    """Every process that belongs to this checkout's stack: it carries the marker, or is its Postgres.

    Postgres overwrites the memory where its environment was to show its state, so it is known by its data directory.
    """
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and _belongs(process, layout):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def _belongs(process: psutil.Process, layout: Layout) -> bool:
    if process.name() == "postgres":
        return process.cwd() == str(layout.data / "postgres")
    return process.environ().get(MARKER) == str(layout.root)


def end_processes(processes: Iterable[psutil.Process], grace_s: float = GRACE_S) -> int:
    """Ask the processes to end, kill those that have not after `grace_s`. Returns how many there were.

    Only the ancestors are asked: each knows best how to end what it has started.
    """
    processes = list(processes)
    pids = {process.pid for process in processes}
    for process in processes:
        try:
            if process.ppid() not in pids:
                # Postgres waits for its clients on SIGTERM; SIGINT ends their sessions.
                process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=KILL_WAIT_S)
    return len(processes)


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    """Wait for a process that is not our child. Returns whether it has ended."""
    try:
        psutil.Process(pid).wait(timeout=timeout_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants, shared pages counted once a process group (PSS where readable, else
    RSS).
    """
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_memory_of(process) for process in family)


def _memory_of(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0)) or int(full.rss)
    except psutil.AccessDenied:
        try:
            return int(process.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0
    except psutil.NoSuchProcess:
        return 0
