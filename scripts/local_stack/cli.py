"""The commands behind `make up`, `make down`, `make status` and their kin."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from local_stack.assembly import assemble, parts_of
from local_stack.endpoints import endpoint_values, render_endpoints
from local_stack.errors import StackError
from local_stack.layout import Layout
from local_stack.lock import exclusive
from local_stack.parts import prometheus
from local_stack.private_files import write_private
from local_stack.processes import end_processes, stray_processes
from local_stack.startup import Started, bring_up
from local_stack.supervision import Supervisor, render_config

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The embedded stack of this checkout.")
console = Console(highlight=False, soft_wrap=True)
ROOT = Path(__file__).resolve().parents[2]


@app.command()
def up() -> None:
    """Start every part that does not run yet and wait until all are healthy."""
    layout = Layout.of(ROOT)
    layout.make_directories()
    with exclusive(layout.lock, lambda: console.print("another command is changing this stack; waiting for it")):
        supervisor = Supervisor(layout)
        running = supervisor.is_running()
        if not running:
            strays = stray_processes(layout)
            if strays:
                console.print(f"ending {len(strays)} processes that a stopped supervisord left behind")
                end_processes(strays)
        with console.status("preparing") as status:
            stack = assemble(layout, running=running, say=status.update)
        parts = parts_of(stack)
        text = render_config(layout, parts)
        if running:
            supervisor.apply_config(text)
        else:
            write_private(layout.supervisor_config, text)
            supervisor.start_daemon()
        values = endpoint_values(stack, prometheus=prometheus.installed() is not None)
        write_private(layout.endpoints, render_endpoints(values))
        with console.status("starting"):
            bring_up(layout, supervisor, parts, report_ready)


def report_ready(started: Started) -> None:
    console.print(
        f"[green]✓[/] {started.part.name:<11} {started.part.endpoint:<42} {started.finding} ({started.took_s:.1f} s)"
    )


@app.command()
def status() -> None:
    """to come"""
