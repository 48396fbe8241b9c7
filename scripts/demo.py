"""`make demo`: a small shop of its own, half a minute of changes, and the same question to MongoDB and to Delta."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import duckdb
import httpx
import obstore
import typer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from pymongo import MongoClient
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.errors import CdcError, Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import change_topic
from cdc_shared.models.common import SourceSpec
from cdc_shared.settings import ObjectStoreSettings, load_settings
from cdc_shared.storage.object_store import table_url
from control_plane.client.control_plane import ControlPlane
from control_plane.client.deployment import run
from control_plane.client.errors import NotFound
from control_plane.client.pipelines import worries
from control_plane.models.pipeline import Pipeline, PipelineConfig
from local_stack.control_plane import control_plane
from local_stack.endpoints import read_endpoints
from local_stack.errors import StackError

ROOT: Final = Path(__file__).resolve().parents[1]
GENERATORS: Final = ROOT / "tests" / "load" / "data_generators"
COLLECTIONS: Final = ("customers", "orders")

REFRESH_S: Final = 0.5
RUNNING_TIMEOUT_S: Final = 90.0
DELETED_TIMEOUT_S: Final = 120.0
DRAIN_TIMEOUT_S: Final = 60.0
KAFKA_TIMEOUT_S: Final = 10.0

QUESTION: Final = "SELECT status, count(*) AS orders, sum(total) AS total FROM {orders} GROUP BY status ORDER BY status"
SAME_FOR_MONGODB: Final = (
    {"$group": {"_id": "$status", "orders": {"$sum": 1}, "total": {"$sum": "$total"}}},
    {"$sort": {"_id": 1}},
)

Answer = dict[str, tuple[int, Decimal]]
"""status → (number of orders, sum of their totals)."""

console = Console(highlight=False)


@dataclass(frozen=True)
class Seen:
    """How far the tables are: rows, and the source's time of the newest change in them (seconds since the epoch)."""

    rows: int = 0
    newest_s: float = 0.0


class Demo:
    """One demonstration under a name of its own, which is also its database, its pipeline and its connector."""

    def __init__(self, api: ControlPlane, endpoints: Mapping[str, str], stores: ObjectStoreSettings) -> None:
        self.name = f"demo-{uuid.uuid4().hex[:6]}"
        self._uri, self._kafka = endpoints["MONGODB_URI"], endpoints["KAFKA_BOOTSTRAP_SERVERS"]
        self._api = api
        self._admin = AdminClient({"bootstrap.servers": self._kafka})
        self._events = 0
        self._root = stores.root_for(None)
        # The API and the writer have that variable.
        self._source = SourceSpec(connection="env:MONGODB_URI", database=self.name, include_collections=COLLECTIONS)
        self._topics = [change_topic(self.name, self.name, collection) for collection in COLLECTIONS]

    def table(self, collection: str) -> str:
        """The URL of a collection's table."""
        return table_url(self._root, self.name, self.name, collection)

    def seed(self, orders: int) -> None:
        """Load the shop."""
        seeder = self._generator("mongodb_seeder.py", "--orders", str(orders), "--customers", str(max(1, orders // 5)))
        if status := seeder.wait():
            raise SystemExit(f"error: the seeder ended with status {status}; is MongoDB up? See `make status`")

    def start_changes(self, rate: float, seconds: float) -> subprocess.Popen[bytes]:
        """Start the generator that keeps the shop changing."""
        return self._generator("change_generator.py", "--rate", str(rate), "--seconds", str(seconds))

    def start_pipeline(self) -> None:
        """Make the pipeline through the API, and wait until it runs."""
        run(
            self._api.pipelines,
            PipelineConfig(name=self.name, source=self._source),
            RUNNING_TIMEOUT_S,
            _tell,
        )

    @contextmanager
    def leaving_nothing_behind(self) -> Iterator[None]:
        """Remove, at the end, whatever the demonstration has made: from the source on, the tables last."""
        try:
            yield
        except BaseException:
            console.print("\nstopped; removing what the demo made")
            self._remove()
            console.print("everything that the demo made is removed")
            raise
        self._remove()

    def events_in_kafka(self) -> int:
        """How many records Debezium has written for the demonstration's collections, transaction markers included."""
        exist = self._admin.list_topics(timeout=KAFKA_TIMEOUT_S).topics.keys() & set(self._topics)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = self._admin.list_offsets({TopicPartition(topic, 0): latest for topic in exist})
        try:
            self._events = sum(future.result(KAFKA_TIMEOUT_S).offset for future in ends.values())
        except KafkaException as error:
            if not isinstance(map_kafka_error(error, "count the events"), Transient):
                raise  # else: a topic's leader may not be known yet just after the topic was made
        return self._events

    def seen(self, database: duckdb.DuckDBPyConnection) -> Seen:
        """How far the tables are now; nothing while they do not exist yet."""
        rows, newest_s = 0, 0.0
        for collection in COLLECTIONS:
            source = delta_scan_sql(self.table(collection))
            question = f"SELECT count(*), coalesce(epoch(max(_cdc_source_ts)), 0) FROM {source}"  # nosec B608
            try:
                ((count, newest),) = database.execute(question).fetchall()  # all: what is left open fails the next one
            except duckdb.IOException:  # there is no table before the first commit
                continue
            rows, newest_s = rows + int(count), max(newest_s, float(newest))
        return Seen(rows, newest_s)

    def ask_delta(self, database: duckdb.DuckDBPyConnection) -> Answer:
        """The question, to Delta; nothing while the table does not exist yet."""
        try:
            rows = database.execute(QUESTION.format(orders=delta_scan_sql(self.table("orders")))).fetchall()
        except duckdb.IOException:
            return {}
        return {status: (orders, Decimal(total)) for status, orders, total in rows}

    def ask_mongodb(self) -> Answer:
        """The same question, to MongoDB."""
        with MongoClient[dict[str, Any]](self._uri) as client:
            groups = client[self.name]["orders"].aggregate(list(SAME_FOR_MONGODB))
            return {group["_id"]: (group["orders"], group["total"].to_decimal()) for group in groups}

    def _generator(self, script: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(GENERATORS / script), "--database", self.name, *options]
        environment = {**os.environ, "MONGODB_URI": self._uri}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _remove(self) -> None:
        try:
            with ExitStack() as undo:
                undo.callback(self._drop_database)  # after the pipeline: the writer keeps its sentinel there
                undo.callback(self._delete_pipeline)
        except BaseException:
            console.print(
                f"not all of it could be removed. Look for the pipeline {self.name} with its tables (DELETE "
                f"/api/v1/pipelines/{self.name}?force=true&keep_tables=false) and the database {self.name} in MongoDB",
                soft_wrap=True,
            )
            raise

    def _delete_pipeline(self) -> None:
        """Have the API take down all that the pipeline has, tables included, and wait until it is gone."""
        with suppress(NotFound):  # it was not made yet
            deletion = self._api.pipelines.delete(self.name, keep_tables=False, force=True)
            self._api.pipelines.wait_for(deletion, DELETED_TIMEOUT_S)

    def _drop_database(self) -> None:
        with MongoClient[dict[str, Any]](self._uri) as client:
            client.drop_database(self.name)


def main(
    seconds: Annotated[float, typer.Option(min=1, help="How long to stream changes.")] = 30.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Changes a second.")] = 50.0,
    orders: Annotated[int, typer.Option(min=1, help="Orders in the shop before the changes.")] = 1_000,
) -> None:
    """Seed a shop in MongoDB, stream changes to it, ask MongoDB and Delta the same question, and clean up."""
    try:
        endpoints = read_endpoints(ROOT / ".local" / "endpoints.env")
    except StackError as error:
        raise SystemExit(f"error: {error}") from error
    os.environ.update({name: value for name, value in endpoints.items() if value})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up as on Ctrl-C
    try:
        with control_plane(endpoints) as api:
            equal = _run(Demo(api, endpoints, load_settings(ObjectStoreSettings)), seconds, rate, orders)
    except StackError as error:
        raise SystemExit(f"error: {error}") from None
    except (CdcError, KafkaException, obstore.exceptions.BaseError, httpx.HTTPError) as error:
        raise SystemExit(f"error: {error}; `make status` shows what is not well") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the demo has said what became of what it made
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # DuckDB wraps a Ctrl-C during a query
            raise
        raise SystemExit(130) from None
    raise SystemExit(0 if equal else 1)


def _run(demo: Demo, seconds: float, rate: float, orders: int) -> bool:
    with demo.leaving_nothing_behind():
        console.print(f"[bold]1[/] seeding database [cyan]{demo.name}[/] with {orders:,} orders")
        demo.seed(orders)
        console.print("[bold]2[/] making the pipeline through the API")
        demo.start_pipeline()
        console.print(f"[bold]3[/] streaming {rate:g} changes a second for {seconds:g} s")
        database = connect(load_settings(ObjectStoreSettings))
        _stream(demo, database, seconds, rate)
        console.print("[bold]4[/] the same question to both\n")
        console.print(f"    {QUESTION.format(orders=delta_scan_sql(demo.table('orders')))}\n", soft_wrap=True)
        took_s, delta, mongodb = _drain(demo, database)
        console.print(_answers(mongodb, delta))
        equal = delta == mongodb
        verdict = "[green]equal[/]" if equal else f"[red]NOT equal[/] {took_s:.0f} s after the last change"
        why = "" if equal else f" (why: {demo.name} in .local/logs/writer.log)"
        console.print(f"Delta and MongoDB are {verdict}{why}; removing what the demo made", soft_wrap=True)
        return equal


def _stream(demo: Demo, database: duckdb.DuckDBPyConnection, seconds: float, rate: float) -> None:
    """Show events and lag until the generator has ended."""
    generator = demo.start_changes(rate, seconds)
    started = time.monotonic()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while generator.poll() is None:
                elapsed_s = time.monotonic() - started
                live.update(_line(elapsed_s, demo.events_in_kafka(), demo.seen(database)), refresh=True)
                _wait(generator, REFRESH_S)
    finally:
        generator.terminate()
        generator.wait()
    console.print()
    if generator.returncode not in (0, -signal.SIGTERM):
        raise SystemExit(f"error: the change generator ended with status {generator.returncode}")


def _drain(demo: Demo, database: duckdb.DuckDBPyConnection) -> tuple[float, Answer, Answer]:
    """Ask both until the answers agree or the time is up; seconds that it took, Delta's answer, MongoDB's answer."""
    started = time.monotonic()
    mongodb = demo.ask_mongodb()
    while True:
        delta = demo.ask_delta(database)
        took_s = time.monotonic() - started
        if delta == mongodb or took_s > DRAIN_TIMEOUT_S:
            return took_s, delta, mongodb
        time.sleep(REFRESH_S)


def _line(elapsed_s: float, events: int, seen: Seen) -> Text:
    lag = f"{max(0.0, time.time() - seen.newest_s):4.1f} s" if seen.rows else "  … "
    return Text(f"  {elapsed_s:5.1f} s │ {events:6,} events in Kafka │ {seen.rows:6,} rows in Delta │ lag {lag}")


def _answers(mongodb: Answer, delta: Answer) -> Table:
    table = Table("status")
    for column in ("orders, MongoDB", "orders, Delta", "total, MongoDB", "total, Delta"):
        table.add_column(column, justify="right", no_wrap=True)
    for status in sorted(mongodb.keys() | delta.keys()):
        (m_orders, m_total), (d_orders, d_total) = (answer.get(status, (0, Decimal(0))) for answer in (mongodb, delta))
        table.add_row(status, f"{m_orders:,}", f"{d_orders:,}", f"{m_total:,.2f}", f"{d_total:,.2f}")
    return table


def _tell(pipeline: Pipeline) -> None:
    why = worries(pipeline)
    console.print(f"    {pipeline.name} is {pipeline.status.state}", end="")
    console.print(f": {why}" if why else "", markup=False, soft_wrap=True)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    typer.run(main)
