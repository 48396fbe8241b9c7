"""What an initial load costs: a topic full of inserts, through the running delta-writer, into a Delta table.

The stack's own writer does the work, as in production: a spec is published, and the table's log says when each batch
was committed. Its CPU time is read from its `/metrics`: what it does meanwhile for the sample pipeline is counted too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable, QueryBuilder
from prometheus_client.parser import text_string_to_metric_families

from bench.events import EventFactory
from bench.fill_topic import create_topic, delete_topic, produce
from cdc_shared.kafka.spec_topic import delete_spec, publish_spec
from cdc_shared.kafka.topics import change_topic, topic_id
from cdc_shared.models.common import PipelineSpec, SinkSpec, SourceSpec
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from cdc_shared.storage.object_store import table_url
from delta_writer.writer.offsets import ChangeTopic, app_id

DATABASE, COLLECTION = "bench", "orders"
LOAD_TIMEOUT_S = 600.0
POLL_S = 0.25
CPU_METRIC = "process_cpu_seconds_total"


@dataclass(frozen=True)
class CostOfLoad:
    """`events_per_s` is the pace from the first commit to the last, which leaves out starting the pipeline;
    `wall_s` is all of it, from publishing the spec to the last commit."""

    events: int
    commits: int
    events_per_s: float
    wall_s: float
    writer_cpu_s: float

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
        self._metrics_url = f"{writer_url.rstrip('/')}/metrics"

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
        cpu_s = self._writer_cpu_s() - cpu_before
        table = self._open()
        rows = QueryBuilder().register("t", table).execute("SELECT count(*) AS n FROM t").read_all()["n"][0].as_py()
        if rows != events:
            raise AssertionError(f"{self._url} holds {rows} rows, expected {events}")
        commits = sorted(
            (entry["timestamp"] / 1000, part[1] - part[0])
            for entry in table.history()
            for part in (entry.get("cdcRanges") or {}).values()
        )
        first, last = commits[0], commits[-1]
        if len(commits) < 2:
            raise AssertionError(f"{events} events went in with one commit: ask for more --events to see a pace")
        pace = sum(size for _, size in commits[1:]) / (last[0] - first[0])
        return CostOfLoad(events, len(commits), pace, last[0] - started, cpu_s)

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
        text = httpx.get(self._metrics_url).raise_for_status().text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return next(float(sample.value) for sample in samples if sample.name == CPU_METRIC)
