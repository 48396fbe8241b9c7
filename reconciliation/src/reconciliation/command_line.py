"""The commands of the reconciliation service."""

import asyncio
import getpass
import signal
from typing import Annotated, Final

import typer

from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.models.reconciliation import JobOptions, Mode, Outcome, Overlap
from cdc_shared.tracing.otel_config import configure_tracing
from reconciliation.plain_errors import EXIT_ERROR, plain_errors
from reconciliation.settings import Settings

SERVICE: Final = "reconciliation"
EXIT_CODES: Final = {Outcome.EQUAL: 0, Outcome.DIFFERENCES: 1, Outcome.UNDECIDED: 3}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # Locals hold credentials.
    pretty_exceptions_show_locals=False,
    help="Proves that Delta tables equal their MongoDB collections, and repairs them when they do not.",
)


@app.command()
def serve() -> None:
    """Work the jobs, schedules and repairs that the control plane's Postgres has, until SIGTERM or Ctrl-C.

    What is under way is then given back, and goes on where it was when the service runs again. Several processes may
    serve one database. Everything is set by the environment; what is missing is named.

    Exit status: 0 stopped by a signal, 2 an error, in its settings for example. What is away for a while is waited for.
    """
    from reconciliation.service import ReconciliationService  # --help need not load it

    with plain_errors():
        settings = Settings.from_environment()
        configure_logging(SERVICE, settings.logging.level, settings.logging.format)
        tracing = configure_tracing(SERVICE, settings.tracing.otlp_endpoint)

        async def run() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await ReconciliationService(settings, stop).run()

        try:
            asyncio.run(run())
        finally:
            tracing.shutdown()


@app.command()
def reconcile(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collections: Annotated[
        list[str] | None, typer.Argument(help="Collections, without their database; all that have a table by default.")
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(help="full: every value; incremental: what changed since the last verification; keys; counts."),
    ] = Mode.FULL,
    documents_per_s: Annotated[
        int | None, typer.Option(min=1, help="Cap on reading the source; none by default.")
    ] = None,
    settle_timeout_s: Annotated[
        float, typer.Option(min=1, help="How long a difference may wait for the writer to come as far.")
    ] = JobOptions().settle_timeout_s,
    overlap: Annotated[
        Overlap, typer.Option(help="When another run of a collection is under way: wait (queue, warn), or skip it.")
    ] = Overlap.QUEUE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Propose a repair of what is found, to be approved.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Compare now, in this process, and show what is found.

    Exit status: 0 all is equal, 1 there are differences, 2 an error, 3 it could not be decided, 130 interrupted.

    The job and its reports are kept as those of the service are. After Ctrl-C the service goes on with the job.
    """
    from reconciliation.one_job import work_one_job  # --help need not load it

    with plain_errors():
        settings = Settings.from_environment()
        configure_logging(SERVICE, "ERROR", settings.logging.format)
        options = JobOptions(documents_per_s=documents_per_s, settle_timeout_s=settle_timeout_s, repair=repair)
        ended = asyncio.run(
            work_one_job(
                settings,
                pipeline,
                tuple(collections) if collections else None,
                mode,
                options,
                overlap,
                by=f"command line ({getpass.getuser()})",
                show=None if quiet else lambda line: typer.echo(line, err=True),
                tell=typer.echo,
            )
        )
    if isinstance(ended, Outcome):
        raise typer.Exit(EXIT_CODES[ended])
    raise typer.Exit(EXIT_ERROR if ended is None else ended)
