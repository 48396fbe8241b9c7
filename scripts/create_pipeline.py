"""`scripts/create-pipeline.sh`: from a spec in a file to a pipeline that runs, through the API."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cdc_shared.errors import CdcError
from cdc_shared.models.common import load_spec
from control_plane.client.control_plane import ControlPlane
from control_plane.client.deployment import PreflightFailed, check, config_from, run
from control_plane.client.pipelines import worries
from control_plane.models.pipeline import Pipeline, PipelineConfig
from control_plane.models.preflight import CheckOutcome, PreflightReport
from local_stack.endpoints import read_endpoints
from local_stack.errors import StackError

ENDPOINTS = Path(__file__).resolve().parents[1] / ".local" / "endpoints.env"
RUNNING_WITHIN_S = 180.0
PLAIN_WIDTH = 160
MARKS = {
    CheckOutcome.OK: "[green]✓[/]",
    CheckOutcome.WARNING: "[yellow]![/]",
    CheckOutcome.FAILED: "[red]✗[/]",
    CheckOutcome.SKIPPED: "[dim]-[/]",
}

console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def main(
    spec: Annotated[Path, typer.Argument(help="The pipeline's spec, YAML or JSON.")],
    check_only: Annotated[bool, typer.Option("--check-only", help="Only tell whether it would run.")] = False,
    start: Annotated[bool, typer.Option(help="Have it run, not only exist.")] = True,
    skip_checks: Annotated[bool, typer.Option("--skip-checks", help="Create it although a check fails.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until it runs.")] = RUNNING_WITHIN_S,
) -> None:
    """Check a pipeline's spec, create the pipeline or change it to the spec, start it, and wait until it runs.

    The control plane is the one of API_URL, API_ADMIN_USER and API_ADMIN_PASSWORD (or API_TOKEN, a service token); not
    set, that of this checkout's `make up`. Repeating it is harmless.
    """
    interrupted = "nothing was changed"
    try:
        config = config_from(load_spec(spec))
        with ControlPlane.from_environment(_environment()) as api:
            _check(api, config, go_on=skip_checks)
            if check_only:
                return
            interrupted = f"what was asked of {config.name} goes on; run this again to wait for it"
            if not start:
                pipeline = api.pipelines.apply(config)
                console.print(f"pipeline [bold]{config.name}[/] is there, and {pipeline.status.state}")
                return
            with console.status(f"starting {config.name}"):
                run(api.pipelines, config, timeout, _tell)
            console.print(f"pipeline [bold]{config.name}[/] runs")
    except PreflightFailed:
        _fail("it would not run: see the checks above (--skip-checks creates it all the same)")
    except (CdcError, StackError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail(f"stopped; {interrupted}", status=130)


def _environment() -> dict[str, str]:
    """The shell's variables; where they say nothing about an API, those of `make up`."""
    own = dict(os.environ)
    return own if own.get("API_URL") else {**own, **read_endpoints(ENDPOINTS)}


def _check(api: ControlPlane, config: PipelineConfig, *, go_on: bool) -> None:
    with console.status("checking"):
        try:
            report = check(api.pipelines, config)
        except PreflightFailed as failed:
            _show(failed.report)
            if not go_on:
                raise
            return
    _show(report)


def _show(report: PreflightReport) -> None:
    for each in report.checks:
        console.print(f"{MARKS[each.outcome]} {each.name}: ", end="")
        console.print(each.message, markup=False, soft_wrap=True)


def _tell(pipeline: Pipeline) -> None:
    why = worries(pipeline)
    console.print(f"  {pipeline.status.state}", end="")
    console.print(f": {why}" if why else "", markup=False, soft_wrap=True)


def _fail(message: str, status: int = 1) -> None:
    console.print("[bold red]✗[/] ", end="")
    console.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(status)


if __name__ == "__main__":
    command = typer.Typer(add_completion=False)
    command.command()(main)
    command(prog_name="scripts/create-pipeline.sh")
