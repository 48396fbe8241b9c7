"""Command line of the delta-writer."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cdc_shared.errors import CdcError
from cdc_shared.kafka.spec_topic import delete_spec, publish_spec
from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.models.common import load_spec
from cdc_shared.settings import KafkaSettings, load_settings
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer.service import WriterService
from delta_writer.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Applies MongoDB changes from Kafka to Delta Lake tables, exactly once.")


@app.command()
def run() -> None:
    """Run the pipelines that the topic cdc.pipelines names, until SIGTERM or Ctrl-C; batches in hand are finished."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _plain_errors():
        settings = Settings.from_environment()
        configure_logging("delta-writer", settings.logging.level, settings.logging.format)
        tracing = configure_tracing("delta-writer", settings.tracing.otlp_endpoint)
        try:
            WriterService(settings, tracing, stop).run()
        finally:
            tracing.shutdown()


@app.command()
def publish(spec: Annotated[Path, typer.Argument(help="YAML file of the pipeline's spec.")]) -> None:
    """Publish a pipeline's spec to cdc.pipelines: writers start it, or restart it when it changed or had stopped."""
    with _plain_errors():
        pipeline = load_spec(spec)
        kafka = load_settings(KafkaSettings)
        publish_spec(kafka.bootstrap_servers, pipeline, topic=kafka.pipelines_topic)
    typer.echo(f"pipeline {pipeline.name} published")


@app.command()
def unpublish(name: Annotated[str, typer.Argument(help="Name of the pipeline.")]) -> None:
    """Take a pipeline's spec back: writers stop it. Its tables stay as they are."""
    with _plain_errors():
        kafka = load_settings(KafkaSettings)
        delete_spec(kafka.bootstrap_servers, name, topic=kafka.pipelines_topic)
    typer.echo(f"pipeline {name} taken back")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Show an error raised on purpose as one line, without a traceback, and end with status 1."""
    try:
        yield
    except CdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
