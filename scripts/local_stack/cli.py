"""The commands behind `make up`, `make down`, `make status` and their kin."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from local_stack import deployment, lifecycle, sample, undeployment
from local_stack.assembly import assemble_as_started, parts_of
from local_stack.control_plane import delete_pipeline, has_pipeline
from local_stack.endpoints import read_endpoints
from local_stack.errors import NotReady, StackError
from local_stack.layout import Layout
from local_stack.parts import prometheus
from local_stack.parts.part import Part
from local_stack.progress import progress as showing
from local_stack.startup import bring_up
from local_stack.status import part_statuses, settled_statuses, status_table
from local_stack.supervision import Supervisor

EXIT_INTERRUPTED = 130
SETTLE_WITHIN_S = 15.0
PLAIN_WIDTH = 160
NOT_RUNNING = "the stack is not running: run `make up`"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    # Locals hold credentials.
    pretty_exceptions_show_locals=False,
    help="The embedded stack of this checkout: the platform's real parts as processes of this machine.",
)
# Without a terminal there is no width to fit: what reads a log file wraps by itself.
console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
ROOT = Path(__file__).resolve().parents[2]

PartName = Annotated[str, typer.Argument(help="A part as `status` names it.")]


@contextmanager
def reported() -> Iterator[Layout]:
    """The checkout's layout; a `StackError` becomes its message and exit code 1, Ctrl-C a hint and exit code 130."""
    try:
        yield Layout.of(ROOT)
    except (StackError, NotReady) as error:
        fail(str(error))
    except KeyboardInterrupt:
        console.print("\nstopped waiting. What has started keeps running: `make up` goes on, `make down` stops it.")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def fail(message: str) -> NoReturn:
    console.print(f"[bold red]✗[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(1)


def _escaped(text: str) -> str:
    """Rich takes square brackets for its own markup."""
    return text.replace("[", "\\[")


@app.command()
def up(
    keep_sample: Annotated[bool, typer.Option(help="Neither start nor stop the sample, and do not query it.")] = False,
) -> None:
    """Start every part that does not run yet and wait until all are healthy."""
    with reported() as layout, lifecycle.changing(layout, console):
        stack, parts = lifecycle.up(layout, console, keep_sample=keep_sample)
        result = None
        try:
            if stack.settings.sample and not keep_sample:
                with showing(console, "the sample pipeline") as progress:
                    result = sample.run_sample(stack, progress)
        finally:
            print_endpoints(layout, parts)
        if result is not None:
            print_sample(result)
        elif stack.settings.mongodb_uri is not None:
            console.print("No sample data is put into your own MongoDB; SAMPLE=1 does so.")


def print_endpoints(layout: Layout, parts: list[Part]) -> None:
    console.print()
    console.print(status_table(settled_statuses(parts, Supervisor(layout).processes, SETTLE_WITHIN_S)))
    if prometheus.installed() is None:
        console.print(f"\n{prometheus.HOW_TO_INSTALL}", soft_wrap=True)
    console.print(f"\nAddresses and credentials: {layout.endpoints}", soft_wrap=True)


def print_sample(result: sample.SampleResult) -> None:
    console.print(
        f"\nThe sample pipeline [bold]shop[/] runs: a change was in Delta {result.took_s:.1f} s after the start of the "
        f"last part, and {result.count} orders are there. Ask again: make query\n",
        soft_wrap=True,
    )
    console.print(f"{result.sql};", soft_wrap=True, markup=False)
    console.print(result.rows.rstrip(), soft_wrap=True, markup=False)


@app.command()
def build() -> None:
    """Install and download what the stack needs; start nothing."""
    with reported() as layout, lifecycle.changing(layout, console):
        lifecycle.build(layout, console)


@app.command()
def deploy(spec: Annotated[Path, typer.Argument(help="YAML file of the pipeline's spec.")]) -> None:
    """Deploy a pipeline without the control plane: its connector, then its spec for the delta-writer.

    Repeating it is harmless. A pipeline that the control plane has is refused: it would undo the change.
    """
    with reported() as layout:
        endpoints = read_endpoints(layout.endpoints)
        name = deployment.spec_name(spec)
        if has_pipeline(endpoints, name):
            raise StackError(
                f"{name} is the control plane's pipeline: change it with scripts/create-pipeline.sh {spec}"
            )
        deployed = deployment.deploy(spec, deployment.connector_template(layout), {**os.environ, **endpoints})
        console.print(f"pipeline {deployed.name}: connector runs, spec published")


@app.command()
def undeploy(name: Annotated[str, typer.Argument(help="The pipeline's name.")]) -> None:
    """Remove a pipeline: its connector, its spec and its topics. Its tables stay."""
    with reported() as layout:
        endpoints = read_endpoints(layout.endpoints)
        with showing(console, f"removing pipeline {name}") as progress:
            if has_pipeline(endpoints, name):
                delete_pipeline(endpoints, name)
            else:
                undeployment.undeploy(name, endpoints, progress.now)
        console.print(
            f"pipeline {name}: removed, with its connector and its topics\n"
            f"Its tables stay: {endpoints['DELTA_ROOT']}/{name}\n"
            f"Delete or move them before another pipeline is named {name}: its topics would be new ones, and a table "
            "goes on only from the topic that it was filled from.",
            soft_wrap=True,
        )


@app.command()
def down() -> None:
    """Stop every process of the stack. Its data stays."""
    with reported() as layout, lifecycle.changing(layout, console):
        lifecycle.down(layout, console)
        console.print("stopped; the data stays in .local (delete it with `make clean`)")


@app.command()
def clean(
    cache: Annotated[bool, typer.Option(help="Also delete the downloads, which other checkouts share.")] = False,
    force: Annotated[bool, typer.Option(help="Do not ask.")] = False,
) -> None:
    """Stop the stack and delete its data, logs, ports and credentials."""
    with reported() as layout, lifecycle.changing(layout, console):
        doomed = [str(layout.local), *([str(layout.cache)] if cache else [])]
        console.print(
            f"deletes {' and '.join(doomed)}: every database, topic, table and log of this stack", soft_wrap=True
        )
        if not force and not os.environ.get("CI"):
            typer.confirm("go on?", abort=True)
        lifecycle.down(layout, console)
        lifecycle.clean(layout, cache=cache)
        console.print("deleted" if cache else "deleted; the downloads are kept (CACHE=1 deletes them too)")


@app.command()
def status() -> None:
    """Ask every part to do its work once. Exit code 1 when one does not."""
    with reported() as layout:
        if not layout.endpoints.exists():
            fail("the stack has not been started in this checkout: run `make up`")
        parts = parts_of(assemble_as_started(layout))
        supervisor = Supervisor(layout)
        running = supervisor.is_running()
        statuses = part_statuses(parts, supervisor.processes() if running else {})
        console.print(status_table(statuses))
        if not running:
            fail(NOT_RUNNING)
        sick = [item.part.name for item in statuses if not item.healthy]
        if sick:
            fail(f"not healthy: {', '.join(sick)}; see `make logs PART={sick[0]}`")


@app.command()
def logs(
    part: Annotated[str | None, typer.Argument(help="A part as `status` names it; all when left out.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines to show first.")] = 30,
    follow: Annotated[bool | None, typer.Option(help="Go on as lines are written. Default: in a terminal.")] = None,
) -> None:
    """Show the parts' logs."""
    with reported() as layout:
        known = sorted(path.stem for path in layout.logs.glob("*.log")) if layout.logs.exists() else []
        if not known:
            fail("there are no logs yet: run `make up`")
        if part is not None and part not in known:
            fail(f"there is no log of {part!r}; there are: {', '.join(known)}")
        following = sys.stdout.isatty() if follow is None else follow
        command = ["tail", f"--lines={lines}", *(["--follow=name", "--retry"] if following else [])]
        command += [str(layout.logs / f"{name}.log") for name in ([part] if part else known)]
        tail = shutil.which("tail")
        if tail is None:
            fail(f"tail is not installed; the logs are in {layout.logs}")
        os.execv(tail, command)  # nosec B606


@app.command()
def start(part: PartName) -> None:
    """Start one part that was stopped, and wait until it is healthy."""
    with reported() as layout, lifecycle.changing(layout, console):
        chosen = _running_part(layout, part)
        bring_up(layout, Supervisor(layout), [chosen], lambda started: console.print(f"{part}: {started.finding}"))


@app.command()
def stop(part: PartName) -> None:
    """Stop one part. It stays down until `start`, `restart` or `make up`."""
    with reported() as layout, lifecycle.changing(layout, console):
        Supervisor(layout).stop(_running_part(layout, part).name)
        console.print(f"{part}: stopped")


@app.command()
def restart(part: PartName) -> None:
    """Stop one part, start it, and wait until it is healthy."""
    with reported() as layout, lifecycle.changing(layout, console):
        chosen = _running_part(layout, part)
        Supervisor(layout).stop(chosen.name)
        bring_up(layout, Supervisor(layout), [chosen], lambda started: console.print(f"{part}: {started.finding}"))


def _running_part(layout: Layout, name: str) -> Part:
    """The part of that name, whose supervisord is up. Raises `StackError` otherwise."""
    if not Supervisor(layout).is_running():
        raise StackError(NOT_RUNNING)
    parts = {part.name: part for part in parts_of(assemble_as_started(layout)) if part.command}
    if name not in parts:
        raise StackError(f"there is no part {name!r}; there are: {', '.join(parts)}")
    return parts[name]
