"""A pipeline of a test's own on the running stack, and everything of it removed afterwards."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from delta_reading import Reader, canonical_rows, open_table, read_with_query_builder
from pymongo import MongoClient
from stack_endpoints import Stack
from waiting import wait_until
from writer_process import WriterProcess

from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.delta.time_travel import table_watermark, watermark_id
from cdc_shared.kafka.compacted_topic import send_record
from cdc_shared.kafka.publication import Publication, publish
from cdc_shared.kafka.rules_topic import forget_rules
from cdc_shared.kafka.spec_topic import delete_spec, publish_spec
from cdc_shared.kafka.status_topic import report_key
from cdc_shared.kafka.topics import STATUS_TOPIC, change_topic, held_offsets, notification_topic, signal_topic, topic_id
from cdc_shared.models.common import BatchSpec, PipelineSpec, SinkSpec, SourceSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.storage.object_store import delete_everything, table_url

EQUAL_TIMEOUT_S = 30.0
CLEANUP_TIMEOUT_S = 30.0
BATCH_SECONDS = 0.3
SHOWN_DIFFERENCES = 5
FINAL_STATES = ("failed", "resync_needed")
STARTED_WRITER = re.compile(r'"event": "delta-writer started",.* "writer": "([^"]+)"')

CanonicalRows = Mapping[str, bytes]
"""`_cdc_key` → the canonical form of the document."""


def trial_name(test_name: str) -> str:
    """A pipeline's name that no other test has, and that says which test it is of."""
    slug = re.sub(r"[^a-z0-9]+", "-", test_name.lower().removeprefix("test_")).strip("-")
    return f"t-{uuid.uuid4().hex[:8]}-{slug}"[:40].rstrip("-")


class TrialPipeline:
    """One pipeline with its own name, database, topics, spec topic, consumer group, table root and writer process."""

    def __init__(self, stack: Stack, name: str, root: str, directory: Path, **options: Any) -> None:
        """`root` is the URL that its tables go under, `directory` the writer's; options as `spec_for` takes them."""
        self.stack = stack
        self.name = self.database = name
        self.root = root
        self.spec = spec_for(name, root, **options)
        self.specs_topic = f"cdc.pipelines.{name}"
        self.admin = AdminClient({"bootstrap.servers": stack.kafka})
        self._directory = directory
        self.writers: dict[str, WriterProcess] = {}
        """The last process of each name."""
        self._writer: WriterProcess | None = None
        self._host: TrialPipeline | None = None

    @property
    def writer(self) -> WriterProcess:
        """The writer process started last."""
        if self._host is not None:
            return self._host.writer
        assert self._writer is not None, "no writer was started"
        return self._writer

    def run_beside(self, host: TrialPipeline) -> None:
        """Run in the other pipeline's writer process; make this one before the host, so that it is closed after it."""
        self._host = host
        self.specs_topic = host.specs_topic

    def publish(self, spec: PipelineSpec | None = None) -> None:
        """Publish the spec, or another one in its place, to the pipeline's own spec topic."""
        self.spec = spec or self.spec
        publish_spec(self.stack.kafka, self.spec, topic=self.specs_topic)

    def publish_quality(self, **quality: Any) -> Publication:
        """Publish the spec with other rules, as `delta-writer publish` does: their version is counted and kept."""
        rules = QualitySpec.model_validate(quality)
        published = publish(self.stack.kafka, self.spec.model_copy(update={"quality": rules}), topic=self.specs_topic)
        self.spec = published.spec
        return published

    def await_rules(self) -> None:
        """Wait until the running writer has taken the rules published last, without a restart."""
        version = self.spec.quality.version

        def is_replaced() -> bool:
            events = self.writer.log_events()
            return any(e.get("event") == "rules replaced" and e.get("version") == version for e in events)

        wait_until(is_replaced, EQUAL_TIMEOUT_S, f"version {version} of the rules is in force")

    def unpublish(self) -> None:
        """Take the spec back."""
        delete_spec(self.stack.kafka, self.name, topic=self.specs_topic)

    def start_writer(
        self, environment: dict[str, str] | None = None, *, ready: bool = True, name: str = ""
    ) -> WriterProcess:
        """Start a writer process, a further one when there was one before; `ready` waits until it is.

        A writer of another `name` runs beside the first, with a cache of its own, as on another machine.
        """
        self._writer = WriterProcess(self.stack, self.specs_topic, self._directory / name, environment)
        self.writers[name] = self._writer
        if ready:
            self._writer.wait_ready()
        return self._writer

    def delete_cache(self) -> None:
        """Remove what the writer keeps on local disk; it must not run."""
        shutil.rmtree(self._directory / "cache", ignore_errors=True)  # a writer that ended early has made none

    def topic(self, collection: str) -> str:
        """The collection's change topic."""
        return change_topic(self.name, self.database, collection)

    def table_url(self, collection: str) -> str:
        """Where the collection's table is."""
        return table_url(self.root, self.name, self.database, collection)

    def rows(self, collection: str, read: Reader = read_with_query_builder) -> dict[str, bytes]:
        """What the collection's table holds, in canonical form; empty when there is no table."""
        return canonical_rows(self.table_url(collection), self.stack.object_store, read)

    def offsets(self, collection: str) -> dict[int, int]:
        """How far the table stands in each partition of its topic: the next offset to read."""
        table = open_table(self.table_url(collection), self.stack.object_store)
        if table is None:
            return {}
        name = self.topic(collection)
        topic = ChangeTopic(name, *topic_id(self.admin, name))
        stands = {p: table.transaction_version(app_id(topic, p)) for p in range(topic.partitions)}
        return {partition: offset for partition, offset in stands.items() if offset is not None}

    def watermark_ms(self, collection: str) -> int | None:
        """The watermark of the collection's table; None while it has none."""
        name, url = self.topic(collection), self.table_url(collection)
        table = open_table(url, self.stack.object_store)
        if table is None:
            return None
        identity = topic_id(self.admin, name)
        names = [watermark_id(identity.id, partition) for partition in range(identity.partitions)]
        each = {name: table.transaction_version(name) for name in names}
        return table_watermark({name: at for name, at in each.items() if at is not None}, *identity)

    def properties(self, collection: str) -> Mapping[str, str]:
        """The properties of the collection's table; none when there is no table."""
        table = open_table(self.table_url(collection), self.stack.object_store)
        return {} if table is None else dict(table.metadata().configuration)

    def held(self, collection: str, partition: int) -> tuple[int, int]:
        """The first offset that Kafka holds of a partition of the collection's topic, and its end."""
        return held_offsets(self.admin, self.topic(collection), partition + 1)[partition]

    def await_rows(self, collection: str, expected: Callable[[], CanonicalRows], timeout_s: float) -> None:
        """Wait until the table holds exactly what `expected` gives. Raises AssertionError with the difference."""
        last = ""

        def same() -> bool:
            nonlocal last
            self.check_running()
            last = difference(expected(), self.rows(collection))
            return not last

        try:
            wait_until(same, timeout_s, "the table is equal")
        except AssertionError:
            raise AssertionError(
                f"{self.table_url(collection)} is not equal after {timeout_s:g} s:\n{last}\n{self.writer.log_tail()}"
            ) from None

    def check_running(self) -> None:
        """Raise AssertionError with the reason when the writer or the pipeline has ended."""
        for writer in self.writers.values() or [self.writer]:
            writer.check_alive()
            state, reason = writer.pipeline_state(self.name)
            assert state not in FINAL_STATES, f"pipeline {self.name} is {state}: {reason}"

    def close(self) -> None:
        """Stop the writer and remove everything that the pipeline made. What fails does not keep the rest."""
        with ExitStack() as cleanup:
            cleanup.callback(self._delete_tables)
            cleanup.callback(self._delete_database)
            cleanup.callback(self._forget_status)
            if self.spec.quality.version:
                cleanup.callback(forget_rules, self.stack.kafka, self.name)
            cleanup.callback(self._delete_group)
            cleanup.callback(self._delete_topics)
            for writer in self.writers.values():
                if writer.alive:
                    cleanup.callback(writer.stop)

    def _delete_topics(self) -> None:
        mine = (f"{self.name}.", f"__debezium-heartbeat.{self.name}")
        exact = {self.specs_topic, signal_topic(self.name), notification_topic(self.name)}
        existing = self.admin.list_topics(timeout=CLEANUP_TIMEOUT_S).topics
        made = [topic for topic in existing if topic in exact or topic.startswith(mine)]
        if made:
            wait(self.admin.delete_topics(made).values(), CLEANUP_TIMEOUT_S)

    def _delete_group(self) -> None:
        # A killed member stays in the group until its session ends: then the group is left to expire by itself.
        wait(self.admin.delete_consumer_groups([f"cdc-writer.{self.name}"]).values(), CLEANUP_TIMEOUT_S)

    def _forget_status(self) -> None:
        """Of every process that there was: to look into the topic for them would take half a second a test."""
        directory = (self._host or self)._directory
        logs = "".join(each.read_text(errors="replace") for each in directory.rglob("writer-*.log"))
        producer = Producer({"bootstrap.servers": self.stack.kafka})
        for instance in sorted(set(STARTED_WRITER.findall(logs))):
            send_record(producer, STATUS_TOPIC, report_key(self.name, instance), None)

    def _delete_database(self) -> None:
        # Also where a test fills the topics itself: the writer keeps its sentinel there.
        with MongoClient[dict[str, Any]](self.stack.mongodb_uri) as client:
            client.drop_database(self.database)

    def _delete_tables(self) -> None:
        delete_everything(f"{self.root}/{self.name}", self.stack.object_store)


def spec_for(
    name: str,
    root: str,
    *,
    mode: str = "deletion_vectors",
    partitions: int = 1,
    max_seconds: float = BATCH_SECONDS,
    max_rows: int = 50_000,
    history: bool = False,
) -> PipelineSpec:
    """A spec whose batches close soon, so that tests need not wait."""
    return PipelineSpec(
        name=name,
        source=SourceSpec(connection="env:MONGODB_URI", database=name),
        sink=SinkSpec.model_validate({"root": root, "mode": mode, "history": history}),
        batch=BatchSpec(max_seconds=max_seconds, max_rows=max_rows),
        topic_partitions=partitions,
    )


def difference(expected: CanonicalRows, actual: CanonicalRows) -> str:
    """What tells two sets of rows apart, in lines for people; empty when they are equal."""
    missing = sorted(expected.keys() - actual.keys())
    extra = sorted(actual.keys() - expected.keys())
    changed = sorted(key for key in expected.keys() & actual.keys() if expected[key] != actual[key])
    lines = [f"{len(expected)} rows expected, {len(actual)} found"] if missing or extra else []
    for title, keys in (("missing", missing), ("extra", extra), ("different", changed)):
        if keys:
            lines.append(f"{len(keys)} {title}:")
        for key in keys[:SHOWN_DIFFERENCES]:
            lines += [f"  {key}"] + [
                f"    {side} {rows[key]!r}"
                for side, rows in (("expected", expected), ("found   ", actual))
                if key in rows
            ]
    return "\n".join(lines)
