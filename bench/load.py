"""What an initial load costs: a topic full of inserts, through the running delta-writer, into a Delta table.

The stack's own writer does the work, as in production: a spec is published, and the table's log says when each batch
was committed. CPU time is that of its process: what it does meanwhile for the sample pipeline is counted too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable, QueryBuilder

from bench.events import EventFactory
from bench.fill_topic import create_topic, delete_topic, produce
from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.kafka.spec_topic import delete_spec, publish_spec
from cdc_shared.kafka.topics import change_topic, topic_id
from cdc_shared.models.common import PipelineSpec, SinkSpec, SourceSpec
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from cdc_shared.storage.object_store import table_url

DATABASE, COLLECTION = "bench", "orders"
LOAD_TIMEOUT_S = 600.0
POLL_S = 0.25
MIN_COMMITS = 3


@dataclass(frozen=True)
class CostOfLoad:
    """`wall_s` is from publishing the spec to the last commit. `steady_events_per_s` is the pace from the first commit
    to the last but one: without the start of the pipeline, and without the last batch, which waits for its time."""

    events: int
    commits: int
    wall_s: float
    steady_events_per_s: float
    writer_cpu_s: float
    writer_rss_mb: float

    @property
    def events_per_s(self) -> float:
        """The pace over everything, start included."""
        return self.events / self.wall_s

    @property
    def cpu_s_per_100k(self) -> float:
        """CPU seconds of the writer process for 100,000 events."""
        return self.writer_cpu_s / self.events * 100_000


class LoadBench:
    """One load under a pipeline name of its own."""

    def __init__(
        self, name: str, root: str, kafka: KafkaSettings, stores: ObjectStoreSettings, writer_url: str
    ) -> None:
        self._spec = PipelineSpec(
            name=name,
            source=SourceSpec(connection="env:MONGODB_URI", database=DATABASE),  # never opened: no connector is made
            sink=SinkSpec(root=root),
        )
        self._topic = change_topic(name, DATABASE, COLLECTION)
        self._url = table_url(root, name, DATABASE, COLLECTION)
        self._servers = kafka.bootstrap_servers
        self._options = stores.storage_options()
        self._writer = _listener_on(urlsplit(writer_url).port)

    def fill(self, events: int, seed: int) -> int:
        """Create the topic and fill it; returns how many messages it holds."""
        name = self._spec.name
        create_topic(self._servers, self._topic)
        factory = EventFactory(seed, pipeline=name, database=DATABASE, collection=COLLECTION)
        return produce(self._servers, self._topic, factory.inserts(events))

    def measure(self, events: int, progress: Callable[[int], None]) -> CostOfLoad:
        """Publish the spec and wait until the table holds all events.

        Raises TimeoutError when it does not in time, AssertionError when its rows are not the ones that were sent.
        """
        cpu_before, started = self._writer_cpu_s(), time.time()
        publish_spec(self._servers, self._spec)
        self._wait_for(events, progress)
        cpu_s, rss_mb = self._writer_cpu_s() - cpu_before, self._writer.memory_info().rss / 1e6
        table = self._open()
        rows = QueryBuilder().register("t", table).execute("SELECT count(*) AS n FROM t").read_all()["n"][0].as_py()
        if rows != events:
            raise AssertionError(f"{self._url} holds {rows} rows, expected {events}")
        commits = sorted(
            (entry["timestamp"] / 1000, part[1] - part[0])
            for entry in table.history()
            for part in (entry.get("cdcRanges") or {}).values()
        )
        if len(commits) < MIN_COMMITS:
            raise AssertionError(f"{events} events went in with {len(commits)} commits: ask for more --events")
        pace = sum(size for _, size in commits[1:-1]) / (commits[-2][0] - commits[0][0])
        return CostOfLoad(events, len(commits), commits[-1][0] - started, pace, cpu_s, rss_mb)

    def remove(self) -> None:
        """Take the pipeline and its topic away; the table stays."""
        delete_spec(self._servers, self._spec.name)
        delete_topic(self._servers, self._topic)

    def _wait_for(self, offset: int, progress: Callable[[int], None]) -> None:
        identity = topic_id(AdminClient({"bootstrap.servers": self._servers}), self._topic)
        application = app_id(ChangeTopic(self._topic, identity.id, identity.partitions), 0)
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        reached = 0
        while reached < offset:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._url} stands at offset {reached} of {offset} after {LOAD_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
            if DeltaTable.is_deltatable(self._url, self._options):
                reached = self._open().transaction_version(application) or 0
                progress(reached)

    def _open(self) -> DeltaTable:
        return DeltaTable(self._url, storage_options=self._options)

    def _writer_cpu_s(self) -> float:
        times = self._writer.cpu_times()
        return times.user + times.system


def _listener_on(port: int | None) -> psutil.Process:
    """The process on this machine that listens on the port. Raises ConnectionError when there is none."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            return psutil.Process(connection.pid)
    raise ConnectionError(f"no delta-writer listens on port {port}: is the stack up? See `make status`")
