"""The commands of the delta-writer."""

import signal
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import Fatal
from cdc_shared.kafka.publication import publish as publish_pipeline
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.kafka.spec_topic import UnknownPipeline, delete_spec, read_spec
from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.models.common import InvalidSpec, PipelineSpec, load_spec
from cdc_shared.resync.resync import Resync
from cdc_shared.resync.resync_progress import ResyncProgress, follow
from cdc_shared.settings import ConnectSettings, KafkaSettings, ObjectStoreSettings, load_settings
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer.dead_letters_command import dead_letters_app
from delta_writer.maintenance.accept_command import accept_collection
from delta_writer.maintenance.optimize_command import ask_to_optimize
from delta_writer.maintenance.optimize_command import follow as follow_optimizing
from delta_writer.maintenance.remask_command import remask as ask_for_masks
from delta_writer.maintenance.restore_command import restore_collection
from delta_writer.plain_errors import plain_errors
from delta_writer.service import WriterService
from delta_writer.settings import Settings
from delta_writer.source.reread_command import reread as request_rereads
from delta_writer.writer.schema_history_command import schema_history

app = typer.Typer(no_args_is_help=True, help="Applies MongoDB changes from Kafka to Delta Lake tables, exactly once.")
app.add_typer(dead_letters_app, name="dead-letters")


@app.command()
def run() -> None:
    """Run the pipelines that the topic cdc.pipelines names, until SIGTERM or Ctrl-C; batches in hand are finished."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with plain_errors():
        settings = Settings.from_environment()
        configure_logging("delta-writer", settings.logging.level, settings.logging.format)
        tracing = configure_tracing("delta-writer", settings.tracing.otlp_endpoint)
        try:
            WriterService(settings, tracing, stop).run()
        finally:
            tracing.shutdown()


@app.command()
def publish(spec: Annotated[Path, typer.Argument(help="YAML file of the pipeline's spec.")]) -> None:
    """Publish a pipeline's spec to cdc.pipelines: writers start it, or restart it when it changed or had stopped.

    When nothing but its rules changed, it goes on and applies them from its next batch on.
    """
    with plain_errors():
        pipeline = load_spec(spec)
        kafka = load_settings(KafkaSettings)
        published = publish_pipeline(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
    version = published.spec.quality.version
    typer.echo(f"pipeline {pipeline.name} published" + (f", version {version} of its rules" if version else ""))
    for notice in published.notices:
        typer.echo(notice)


@app.command()
def unpublish(name: Annotated[str, typer.Argument(help="Name of the pipeline.")]) -> None:
    """Take a pipeline's spec back: writers stop it. Its tables stay as they are."""
    with plain_errors():
        kafka = load_settings(KafkaSettings)
        with suppress(InvalidSpec):  # one that cannot be used is taken back as well
            try:
                read_spec(kafka.bootstrap_servers, name, kafka.pipelines_topic)
            except UnknownPipeline:
                typer.echo(f"pipeline {name} is not in {kafka.pipelines_topic}: there is nothing to take back")
                return
        delete_spec(kafka.bootstrap_servers, name, topic=kafka.pipelines_topic)
    typer.echo(f"pipeline {name} taken back")


@app.command()
def restore(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[str, typer.Argument(help="Name of the collection, without its database.")],
    version: Annotated[int | None, typer.Option(help="The table's version to go back to.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Or: the newest version committed by this time (2026-01-31T12:00:00Z).")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="The collection's history table instead.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only see what it would do, and whether it can.")] = False,
    spec: Annotated[
        Path | None, typer.Option(help="YAML file of the pipeline's spec, when it is not published.")
    ] = None,
) -> None:
    """Put a damaged table back to an earlier version, offsets and all; the writers then read on from there.

    Only while no writer runs the pipeline (`unpublish` it first; writers that are leaving are waited for), only where
    Kafka still has the events since that version, and not to before the rows were masked.
    """
    with plain_errors():
        target = _restore_target(version, as_of)
        kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
        found = _spec_of(pipeline, spec, kafka)
        restore_collection(
            kafka.bootstrap_servers, stores, found, collection, target, typer.echo, history=history, dry_run=dry_run
        )


@app.command()
def accept(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[str, typer.Argument(help="Name of the collection, without its database.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only see what others did to the table.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    spec: Annotated[
        Path | None, typer.Option(help="YAML file of the pipeline's spec, when it is not published.")
    ] = None,
) -> None:
    """Keep what other programs did to a table's rows, so that its writers go on; then reconcile it, and repair.

    Instead of `restore`, when Kafka no longer has what that needs, or a part of what the others did shall stay until
    it is repaired. Refused where the schema was changed, for rows without a key, and for rows that lack masks.
    """
    with plain_errors():
        kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
        found = _spec_of(pipeline, spec, kafka)

        def confirm() -> None:
            if not yes:
                typer.confirm("Keep these changes until reconciliation has repaired what is wrong?", abort=True)

        accept_collection(
            kafka.bootstrap_servers, stores, found, collection, typer.echo, dry_run=dry_run, confirm=confirm
        )


def _spec_of(pipeline: str, spec: Path | None, kafka: KafkaSettings) -> PipelineSpec:
    """The spec in the file, or the published one."""
    try:
        found = load_spec(spec) if spec else read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
    except UnknownPipeline:  # publishing it again would start its writers, which must stand still
        raise Fatal(
            f"pipeline {pipeline} is not in {kafka.pipelines_topic}; give its spec with --spec FILE, or correct "
            "the name"
        ) from None
    if found.name != pipeline:
        raise InvalidSpec(f"{spec}: is the spec of {found.name}, not of {pipeline}")
    return found


def _restore_target(version: int | None, as_of: str | None) -> int | datetime:
    if version is not None and as_of is None:
        return version
    if as_of is None or version is not None:
        raise typer.BadParameter("give --version or --as-of, and not both")
    try:
        at = datetime.fromisoformat(as_of)
    except ValueError:
        raise typer.BadParameter(f"--as-of {as_of}: write a time as 2026-01-31T12:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@app.command("schema-history")
def show_schema_history(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[str, typer.Argument(help="Name of the collection, without its database.")],
    history: Annotated[bool, typer.Option("--history", help="The collection's history table instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the whole schema of each version.")] = False,
) -> None:
    """Show how a table's schema came to be: what changed, when, and which event showed each field first."""
    with plain_errors():
        kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
        spec = read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
        typer.echo(schema_history(stores, spec, collection, history=history, as_json=as_json))


@app.command()
def reread(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[str, typer.Argument(help="Name of the collection, without its database.")],
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID...",
            help="The documents' _ids in Extended JSON: 42 (an integer; a double is 42.0), '\"text\"', "
            '\'{"$oid": "…"}\'. 24 hex digits alone are an ObjectId. Put -- before a negative number.',
        ),
    ] = None,
    file: Annotated[
        typer.FileText | None,
        typer.Option(help="A file with one _id a line, besides those given; - is standard input."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who look at the topic.")] = "delta-writer reread",
) -> None:
    """Have the writer read documents from MongoDB again and bring their rows to what it finds: repaired, or deleted."""
    with plain_errors():
        wanted = [*(ids or []), *(line.strip() for line in file or [] if line.strip())]
        if not wanted:
            raise typer.BadParameter("give at least one ID, or --file")
        kafka = load_settings(KafkaSettings)
        spec = read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
        request_rereads(kafka.bootstrap_servers, spec, collection, wanted, reason, typer.echo)


@app.command()
def remask(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[
        str | None, typer.Option(help="Only this collection, without its database; otherwise all of the pipeline.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do, and whether it can.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Mask what was written before a mask was added, in tables and histories, and delete all their older versions.

    The pipeline's writer does it in the background; readers of older versions, and time travel, lose them.
    """
    with plain_errors():
        kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
        spec = read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
        versions = read_versions(kafka.bootstrap_servers, pipeline)
        now_ms = int(time.time() * 1000)

        def confirm() -> None:
            if not yes:
                typer.confirm("Mask the rows, and delete all older versions for good?", abort=True)

        ask_for_masks(stores, spec, versions, collection, typer.echo, now_ms=now_ms, dry_run=dry_run, confirm=confirm)


@app.command()
def optimize(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[
        str | None, typer.Option(help="Only this collection, without its database; otherwise all of the pipeline.")
    ] = None,
    vacuum: Annotated[bool, typer.Option(help="Also delete what no retained version needs.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would gain.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is done, and say what it has saved.")] = True,
) -> None:
    """Have small files put together, deleted rows dropped, and old files deleted, now and not when it pays by itself.

    The pipeline's writer does it beside the stream, within its budget. Ctrl-C, once it was asked for, only ends the
    waiting.
    """
    with plain_errors():
        kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
        spec = read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
        asked = ask_to_optimize(stores, spec, collection, typer.echo, with_vacuum=vacuum, dry_run=dry_run)
        if wait:
            follow_optimizing(asked, typer.echo)


@app.command()
def resync(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    collection: Annotated[
        list[str] | None,
        typer.Option(help="Only this collection, without its database; may be repeated. Otherwise the whole pipeline."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Show how it goes until every table is whole again.")] = True,
) -> None:
    """Take a new snapshot, after which the tables equal the source whatever was missed; readers keep the old rows.

    The way out of "resync needed", and out of a gap in the source's log (then without --collection). Ctrl-C, once the
    snapshot was asked for, only ends the waiting.
    """
    with plain_errors():
        kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
        spec = read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)
        with ConnectClient(load_settings(ConnectSettings).url) as connect:
            request = Resync(spec, kafka, stores, connect, collection or [], typer.echo)
            target = request.start()
            if not wait:
                return
            try:
                with ResyncProgress(spec, stores, target, kafka.bootstrap_servers, typer.echo) as progress:
                    follow(progress, spec.name, connect, typer.echo)
            except KeyboardInterrupt:
                typer.echo("no longer waiting; the resync goes on")
