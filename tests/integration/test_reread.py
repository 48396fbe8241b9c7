"""Re-read requests on the real stack: they repair whatever row they are sent for, and never harm one that changes."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from bson import Binary, DatetimeMS, Int64, ObjectId
from bson_documents import golden_document, uniform_document
from confluent_kafka import Producer
from debezium_events import Op, event_key, event_value
from delta_reading import read_with_query_builder
from kafka_reading import records_since
from mongo_pipeline import EXACT, MongoPipeline
from pymongo import DeleteOne, MongoClient, ReplaceOne, UpdateOne
from tcp_proxy import TcpProxy
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.documents import canonical_document, key_text
from cdc_shared.kafka.reread_requests import RereadsRequested, request_rereads
from cdc_shared.kafka.topics import partition_for

pytestmark = pytest.mark.integration

COLLECTION = "things"
TIMEOUT_S = 90.0
WRITES_A_SECOND = 1_000
WRITES_A_BULK = 50
REQUESTS = 500
REQUESTS_AT_ONCE = 20
RACE_S = 8.0
PARTITIONS = 2

IDS: list[Any] = [
    *range(80),
    *(Int64(2**40 + n) for n in range(10)),
    *(f"text {n} é日" for n in range(40)),
    *(ObjectId(f"{n:024x}") for n in range(40)),
    *({"region": n % 3, "no": f"{n}"} for n in range(20)),
    *(n + 0.5 for n in range(10)),
    *(DatetimeMS(1_700_000_000_123 + n) for n in range(10)),
    *(Binary(bytes([n] * 16), 4) for n in range(10)),
    True,
    False,  # not None: SecantusDB's change stream looks up no document whose _id is null, and so loses its updates
]


def request(pipeline: MongoPipeline | TopicPipeline, ids: Sequence[Any], collection: str = COLLECTION) -> None:
    keys = [key_text(each) for each in ids]
    done = request_rereads(
        pipeline.stack.kafka, pipeline.name, pipeline.database, collection, keys, reason="integration test"
    )
    assert done == RereadsRequested(len(ids))


class Writes:
    """Random writes to documents of `IDS` at a steady pace, from a thread of its own."""

    def __init__(self, pipeline: MongoPipeline, rng: random.Random) -> None:
        self._collection = pipeline.db[COLLECTION]
        self._rng = random.Random(rng.random())
        self.count = 0
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        stop, failures = threading.Event(), list[BaseException]()

        def work() -> None:
            started = time.monotonic()
            try:
                while not stop.wait(max(0.0, started + self.count / WRITES_A_SECOND - time.monotonic())):
                    self._collection.bulk_write([self._one() for _ in range(WRITES_A_BULK)], ordered=False)
                    self.count += WRITES_A_BULK
            except BaseException as failure:
                failures.append(failure)
            self.seconds = time.monotonic() - started

        thread = threading.Thread(target=work, name="writes")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if failures:
            raise failures[0]

    def _one(self) -> ReplaceOne[dict[str, Any]] | UpdateOne | DeleteOne:
        """Replace or insert, update or insert, delete: each meets a document, or not, as it happens."""
        match = {"_id": self._rng.choice(IDS)}
        number, choice = self._rng.randrange(10**9), self._rng.random()
        if choice < 0.5:
            mixed = self._rng.choice([number, "text", None, 2.5, [1, "a"]])
            return ReplaceOne(match, {"n": number, "mixed": mixed, "tags": ["x"] * (number % 4)}, upsert=True)
        if choice < 0.65:  # few: of each the source looks the document up, and a third of its time would go there
            return UpdateOne(match, {"$set": {"n": number}, "$inc": {"count": 1}}, upsert=True)
        return DeleteOne(match)


def test_requests_that_race_with_writes_leave_the_table_equal(
    new_pipeline: Callable[..., MongoPipeline], rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    """Attacks I5, I6 and I11."""
    pipeline = new_pipeline(partitions=PARTITIONS, max_seconds=0.2)
    pipeline.db[COLLECTION].insert_many([{"_id": each, "n": -1} for each in IDS])
    pipeline.await_equal(COLLECTION, TIMEOUT_S)
    absent = [f"absent {n}" for n in range(20)]
    writes = Writes(pipeline, rng)
    with writes.running():
        started = time.monotonic()
        for sent in range(0, REQUESTS, REQUESTS_AT_ONCE):
            time.sleep(max(0.0, started + RACE_S * sent / REQUESTS - time.monotonic()))
            request(pipeline, rng.choices([*IDS, *absent], k=REQUESTS_AT_ONCE))
    measured("writes to the source beside 500 re-read requests", writes.count / writes.seconds, "writes/s")

    def answered(outcome: str = "") -> int:
        labels = {"outcome": outcome} if outcome else {}
        return int(pipeline.writer.metric("cdc_rereads_total", pipeline=pipeline.name, **labels))

    pipeline.await_equal(COLLECTION, TIMEOUT_S)
    # Behind everything, one document a partition: once it is in the table, so is all that came before it.
    _insert_last(pipeline)
    pipeline.await_equal(COLLECTION, TIMEOUT_S)
    assert answered() == REQUESTS
    assert answered("upserted") > REQUESTS / 5
    assert answered("deleted") > REQUESTS / 10
    assert pipeline.writer.metric("cdc_dead_letters_total", pipeline=pipeline.name) == 0


def _insert_last(pipeline: MongoPipeline) -> None:
    missing = set(range(PARTITIONS))
    for n in range(1_000):
        partition = partition_for(event_key(f"last {n}"), PARTITIONS)
        if partition in missing:
            pipeline.db[COLLECTION].insert_one({"_id": f"last {n}"})
            missing.discard(partition)
    assert not missing


def test_damaged_rows_are_repaired_from_the_command_line(new_pipeline: Callable[..., MongoPipeline]) -> None:
    """A row re-read is the row that the document's own event made, in every column and every BSON type."""
    pipeline = new_pipeline(partitions=PARTITIONS)
    documents = [uniform_document(1_000 + n) for n in range(20)] + [
        {"_id": each, **golden_document()} for each in IDS[::9]
    ]
    pipeline.db[COLLECTION].insert_many(documents)
    pipeline.await_equal(COLLECTION, TIMEOUT_S)
    before = _rows(pipeline)
    expected = pipeline.documents(COLLECTION)

    altered, dropped, never = documents[::3], documents[1::3], "never in MongoDB"
    for document in altered:
        _send_event(pipeline, "u", document["_id"], {"_id": document["_id"], "str": "wrong", "int32": 2.5})
    for document in dropped:
        _send_event(pipeline, "d", document["_id"], None)
    _send_event(pipeline, "c", never, {"_id": never})
    damaged = {key_text(each["_id"]) for each in dropped}
    wait_until(
        lambda: key_text(never) in (found := pipeline.rows(COLLECTION)) and not damaged & found.keys(),
        TIMEOUT_S,
        "the table is damaged",
    )

    assert pipeline.rows(COLLECTION) != expected
    texts = [key_text(each["_id"]) for each in [*altered, *dropped]]
    said = _reread_command(pipeline, [*texts, f'"{never}"'])
    assert said == f"{len(texts) + 1} re-read requests sent to {pipeline.topic(COLLECTION)}\n"
    pipeline.await_equal(COLLECTION, TIMEOUT_S)
    assert pipeline.documents(COLLECTION) == expected
    assert _rows(pipeline) == before
    _assert_keys_and_partitions_are_debeziums(pipeline, len(texts) + 1)


def test_a_source_that_is_away_is_waited_for(
    new_topic_pipeline: Callable[..., TopicPipeline],
) -> None:
    """Nothing is dropped and nothing overtakes; the same with a copy-on-write table."""
    pipeline = new_topic_pipeline(mode="copy_on_write", start=False)
    items = pipeline.items
    with MongoClient[dict[str, Any]](pipeline.stack.mongodb_uri) as client, TcpProxy(_primary(pipeline)) as proxy:
        database = client.get_database(pipeline.database, codec_options=EXACT)
        try:
            database[items.name].insert_one({"_id": "kept", "n": 1})
            port = proxy.url.rpartition(":")[2]
            uri = f"mongodb://127.0.0.1:{port}/?directConnection=true&serverMonitoringMode=poll"
            pipeline.start({"MONGODB_URI": uri})
            items.insert({"_id": "kept", "n": "damaged"}, {"_id": "gone", "n": 1})
            items.await_equal()

            proxy.cut()
            request(pipeline, ["kept", "gone", "absent"], items.name)
            items.insert({"_id": "after", "n": 2})
            items.flush()
            reason = pipeline.writer.wait_state(pipeline.name, "retrying")
            assert reason is not None
            assert "env:MONGODB_URI" in reason
            assert "Connection refused" in reason
            wait_until(
                lambda: pipeline.writer.metric("cdc_retries_total", pipeline=pipeline.name, operation="re-read") >= 2,
                TIMEOUT_S,
                "it tries again",
            )
            assert key_text("after") not in pipeline.rows(items.name)

            proxy.restore()
            items.model = {
                key_text(each["_id"]): canonical_document(each)
                for each in [{"_id": "kept", "n": 1}, {"_id": "after", "n": 2}]
            }
            pipeline.await_rows(items.name, lambda: items.model, TIMEOUT_S)
            assert pipeline.writer.metric("cdc_rereads_total", pipeline=pipeline.name, outcome="upserted") == 1
            assert pipeline.writer.metric("cdc_rereads_total", pipeline=pipeline.name, outcome="deleted") == 2
            assert pipeline.writer.metric("cdc_dead_letters_total", pipeline=pipeline.name) == 0
        finally:
            client.drop_database(pipeline.database)


def _primary(pipeline: TopicPipeline) -> str:
    with MongoClient[dict[str, Any]](pipeline.stack.mongodb_uri) as client:
        return "mongodb://" + str(client.admin.command("hello")["primary"])


def _rows(pipeline: MongoPipeline) -> dict[str, dict[str, Any]]:
    """The table's rows without what says which event they are of."""
    rows = read_with_query_builder(pipeline.table_url(COLLECTION), pipeline.stack.object_store).to_pylist()
    return {
        row["_cdc_key"]: {
            name: repr(value) for name, value in row.items() if name not in ("_cdc_offset", "_cdc_source_ts")
        }
        for row in rows
    }


def _send_event(pipeline: MongoPipeline, op: Op, document_id: Any, document: dict[str, Any] | None) -> None:
    """An event that the connector never sent."""
    value = event_value(
        op, document, pipeline=pipeline.name, database=pipeline.database, collection=COLLECTION, ts_ms=1_700_000_000_000
    )
    key = event_key(document_id)
    producer = Producer({"bootstrap.servers": pipeline.stack.kafka})
    producer.produce(pipeline.topic(COLLECTION), value, key, partition_for(key, PARTITIONS))
    assert producer.flush(TIMEOUT_S) == 0


def _reread_command(pipeline: MongoPipeline, ids: Sequence[str]) -> str:
    """`delta-writer reread`: half of the ids as arguments, half as lines of its standard input."""
    half = len(ids) // 2
    command = [
        sys.executable,
        "-m",
        "delta_writer",
        "reread",
        pipeline.name,
        COLLECTION,
        "--file",
        "-",
        "--",
        *ids[:half],
    ]
    ended = subprocess.run(
        command,
        input="\n".join(ids[half:]),
        env={"PATH": "", "KAFKA_BOOTSTRAP_SERVERS": pipeline.stack.kafka, "CDC_PIPELINES_TOPIC": pipeline.specs_topic},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _assert_keys_and_partitions_are_debeziums(pipeline: MongoPipeline, requests: int) -> None:
    """The bytes of every request's key, and its partition, are those of the connector's own events."""
    ours, debeziums = set[tuple[bytes | None, int]](), set[tuple[bytes | None, int]]()
    for partition in range(PARTITIONS):
        for record in records_since(pipeline.stack.kafka, pipeline.topic(COLLECTION), 0, partition):
            value = record.value() or b""
            if b'"op":"x"' in value:
                ours.add((record.key(), partition))
            elif b'"op":"c"' in value or b'"op":"r"' in value:
                debeziums.add((record.key(), partition))
    assert len(ours) == requests
    assert {partition for _, partition in ours} == set(range(PARTITIONS))
    assert ours <= debeziums
