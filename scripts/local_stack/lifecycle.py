"""Starting, stopping and deleting a checkout's stack."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from local_stack.assembly import assemble, lost_source, own_mongodb_as_started, parts_of
from local_stack.endpoints import endpoint_values, render_endpoints
from local_stack.errors import StackError
from local_stack.jars import ensure_jars
from local_stack.layout import Layout
from local_stack.lock import exclusive
from local_stack.parts import prometheus
from local_stack.parts.object_store import stray_sockets
from local_stack.parts.part import Part
from local_stack.ports import read_ports
from local_stack.prerequisites import require_java, require_maven
from local_stack.private_files import write_private
from local_stack.processes import end_processes, stray_processes, wait_until_gone
from local_stack.progress import progress as showing
from local_stack.stack import Stack
from local_stack.startup import Started, bring_up, stop_order
from local_stack.supervision import Supervisor, render_config

SHUTDOWN_TIMEOUT_S = 90


@contextmanager
def changing(layout: Layout, console: Console) -> Iterator[None]:
    """The right to change this checkout's stack; waits, and says so, while another command has it."""
    layout.make_directories()
    with exclusive(layout.lock, lambda: console.print("another command is changing this stack: waiting for it to end")):
        yield


def build(layout: Layout, console: Console) -> None:
    """Everything the stack needs on this machine, without starting it. To be called under `changing`."""
    with showing(console, "Java") as progress:
        java = require_java(progress)
        jars = ensure_jars(layout, lambda: require_maven(progress), java, progress)
    console.print(f"[green]✓[/] java        {java}")
    console.print(f"[green]✓[/] jars        {jars}", soft_wrap=True)


def up(layout: Layout, console: Console, *, keep_sample: bool = False) -> tuple[Stack, list[Part]]:
    """Start what does not run and wait until every part is healthy. To be called under `changing`.

    `keep_sample`: the sample's generator neither starts nor stops.
    """
    supervisor = Supervisor(layout)
    running = supervisor.is_running()
    if not running:
        _end_strays(layout, console)
    source_before = own_mongodb_as_started(layout) if layout.endpoints.exists() else None
    with showing(console, "preparing") as progress:
        stack = assemble(layout, running=running, keep_sample=keep_sample, progress=progress)
    warning = lost_source(source_before, stack.settings.mongodb_uri)
    if warning is not None:
        console.print(f"[bold yellow]! {warning}[/]", soft_wrap=True)
    parts = parts_of(stack)
    _supervise(layout, supervisor, parts, console, running=running)
    values = endpoint_values(stack, prometheus=prometheus.installed() is not None)
    write_private(layout.endpoints, render_endpoints(values))
    waiting = [part.name for part in parts]

    def on_ready(started: Started) -> None:
        waiting.remove(started.part.name)
        progress.now(f"waiting for {', '.join(waiting)}")
        took = f"{started.took_s:.1f} s".rjust(7)
        console.print(f"[green]✓[/] {started.part.name:<11}{took}  {started.finding}")

    with showing(console, f"waiting for {', '.join(waiting)}") as progress:
        bring_up(layout, supervisor, parts, on_ready)
    return stack, parts


def down(layout: Layout, console: Console) -> None:
    """Stop everything, also what a killed supervisord has left behind. To be called under `changing`."""
    supervisor = Supervisor(layout)
    if supervisor.is_running():
        _stop_in_order(supervisor, console)
        pid = supervisor.pid()
        supervisor.shutdown()
        if not wait_until_gone(pid, SHUTDOWN_TIMEOUT_S):
            console.print(f"supervisord (pid {pid}) does not stop; killing it")
    _end_strays(layout, console)
    for path in (*stray_sockets(read_ports(layout.ports)), layout.supervisor_socket, layout.supervisor_pid):
        path.unlink(missing_ok=True)
    left = stray_processes(layout)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise StackError(f"these processes of the stack do not end: {pids}; end them with kill -9")


def clean(layout: Layout, *, cache: bool) -> None:
    """Delete the stack's state, and with `cache` the downloads. To be called under `changing`, after `down`."""
    for path in layout.local.iterdir():
        if path == layout.lock:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if layout.supervisor_socket.parent.parent != layout.local:
        shutil.rmtree(layout.supervisor_socket.parent, ignore_errors=True)
    if cache:
        shutil.rmtree(layout.cache, ignore_errors=True)


def _supervise(
    layout: Layout, supervisor: Supervisor, parts: Sequence[Part], console: Console, *, running: bool
) -> None:
    text = render_config(layout, parts)
    if not running:
        write_private(layout.supervisor_config, text)
        supervisor.start_daemon()
        return
    changed = supervisor.apply_config(text)
    if changed:
        console.print(f"changed, so started again: {', '.join(changed)}")


def _stop_in_order(supervisor: Supervisor, console: Console) -> None:
    running = {name for name, process in supervisor.processes().items() if process.state != "STOPPED"}
    with showing(console, "stopping") as progress:
        for group in stop_order(running):
            progress.now(f"stopping {', '.join(group)}")
            supervisor.stop_all(group)


def _end_strays(layout: Layout, console: Console) -> None:
    strays = stray_processes(layout)
    if strays:
        console.print(f"ending {len(strays)} processes that a killed supervisord left behind")
        end_processes(strays)
