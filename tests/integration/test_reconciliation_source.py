"""A collection of the real source is read once, whatever its ids are and whatever happens to the connection."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri
from slow_proxy import SlowProxy
from stack_endpoints import Stack

from cdc_shared.documents import DocumentSchema, to_delta_schema
from cdc_shared.documents import types as t
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.models.reconciliation import Mode
from cdc_shared.settings import SecretsSettings
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.reconciler.spill import ScannedPart
from reconciliation.sources import throttle as throttle_module
from reconciliation.sources.chunks import ALL, Chunk, chunks_between, plan_chunks
from reconciliation.sources.mongodb_reader import DocumentCount, MongodbReader
from reconciliation.sources.raw_ids import id_only
from reconciliation.sources.source_scan import SourceScanTask, scan_source
from reconciliation.sources.throttle import Throttle
from reconciliation.workers.processes import ProcessRunner
from reconciliation.workers.runner import Runner
from reconciliation.workers.threads import ThreadRunner

pytestmark = pytest.mark.integration

NO_SECRETS = SecretsSettings(file=None, key_file=None, key=None)
WHOLE = Chunk(0, ALL)
BINARY = 5
"""BSON's number for it."""


@pytest.fixture
def database(stack: Stack) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](stack.mongodb_uri) as client:
        made = client[f"reconciliation_{uuid.uuid4().hex[:8]}"]
        yield made
        client.drop_database(made.name)


def source(uri: str) -> MongodbSource:
    return MongodbSource(SourceSpec(connection="env:URI", database="any"), NO_SECRETS, {"URI": uri})


def mixed_ids(rng: random.Random) -> list[Any]:
    ids: list[Any] = [
        *(float("nan"), float("-inf"), float("inf"), Decimal128("9.25"), Int64(2**60), "", "\uffff", None, True, False),
        *({}, {"a": 1}, {"a": "x"}, {"b": None}, b"\x01\x02", Binary(b"x", 5), Binary(b"1" * 16, 4), Timestamp(5, 1)),
        *(DatetimeMS(-1), DatetimeMS(2**42), MinKey(), MaxKey(), Code("f()")),
        *(ObjectId(rng.randbytes(12)) for _ in range(150)),
        *(10 + i + rng.choice([0, 0.5]) for i in range(150)),
        *(f"name {i}" for i in range(80)),
        *({"k": i, "z": rng.choice([str(i), i])} for i in range(60)),
    ]
    rng.shuffle(ids)
    return ids


def test_ids_of_every_type_are_read_once_and_gone_on_with_from_anywhere(
    stack: Stack, database: Any, rng: random.Random
) -> None:
    documents = [{"_id": value, "n": i} for i, value in enumerate(mixed_ids(rng))]
    database["mixed"].insert_many(documents)
    at = source(stack.mongodb_uri)
    collection = Collection(database.name, "mixed")
    reader = MongodbReader(at, collection, not_before=MongodbReader(at, collection).operation_time())
    written = sorted(map(bson.encode, documents))

    whole = [each for batch in reader.read(WHOLE, Throttle()) for each in batch]
    assert sorted(whole) == written
    assert reader.count() == DocumentCount(len(documents), exact=True)

    chunks = plan_chunks(at, collection, 60)
    assert len(chunks) > 5
    parts = [[each for batch in reader.read(chunk, Throttle()) for each in batch] for chunk in chunks]
    assert sorted(each for part in parts for each in part) == written

    # Behind any document, also where one bracket ends and another begins.
    found = database["mixed"].find_raw_batches
    borders = [i for i, (one, other) in enumerate(pairwise(whole)) if one[4] != other[4]]
    # Not behind binaries of several subtypes: SecantusDB sorts them by length, as MongoDB does, but compares them
    # by subtype.
    places = [i for i in rng.sample(borders, 8) + rng.sample(range(len(whole)), 8) if whole[i][4] != BINARY]
    for i in places:
        rest = b"".join(found(WHOLE.filter(whole[i]), sort=[("_id", 1)]))
        assert rest == b"".join(whole[i + 1 :]), bson.decode(id_only(whole[i]))
    at.close()


@pytest.fixture
def proxied(stack: Stack) -> Iterator[tuple[SlowProxy, MongodbSource]]:
    host, port = parse_uri(stack.mongodb_uri)["nodelist"][0]
    with SlowProxy(host, port) as proxy:
        made = source(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true&serverMonitoringMode=poll")
        yield proxy, made
        made.close()


def test_a_slow_source_is_read_slower_and_a_broken_connection_loses_nothing(
    database: Any,
    proxied: tuple[SlowProxy, MongodbSource],
    monkeypatch: pytest.MonkeyPatch,
    measured: Any,
) -> None:
    monkeypatch.setattr(throttle_module, "BATCH_DOCUMENTS", 50)
    proxy, at = proxied
    documents = [{"_id": i, "n": i} for i in range(3000)]
    database["slow"].insert_many(documents)
    reader = MongodbReader(at, Collection(database.name, "slow"))
    throttle = Throttle()
    reading = reader.read(WHOLE, throttle)
    batches = [next(reading) for _ in range(2)]

    def rate(count: int) -> float:
        began = time.monotonic()
        batches.extend(next(reading) for _ in range(count))
        return 50 * count / (time.monotonic() - began)

    usual = rate(20)
    assert throttle.share > 1 / 2
    proxy.delay_s = 0.1
    slow = rate(7)
    own_pace = 50 / 0.1
    measured("documents a second: usual", usual, "1/s")
    measured("documents a second: answers 0.1 s late", slow, "1/s")
    assert throttle.share <= 1 / 4
    assert slow < own_pace / 2  # slower than the answers alone would make it
    proxy.delay_s = 0.0
    rate(12)
    assert throttle.share > 1 / 4

    proxy.cut()
    batches.extend(reading)
    assert reader.retries >= 1
    assert [bson.decode(each) for batch in batches for each in batch] == documents


def test_parts_of_processes_are_those_of_one_thread(
    stack: Stack, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_URI", stack.mongodb_uri)
    database["orders"].insert_many([{"_id": ObjectId(), "n": i} for i in range(600)])
    collection = Collection(database.name, "orders")
    spec = PipelineSpec(name="p", source=SourceSpec(connection="env:SOURCE_URI", database=database.name))
    at = source(stack.mongodb_uri)
    not_before = MongodbReader(at, collection).operation_time()
    schema = to_delta_schema(
        DocumentSchema(
            (t.Field("_id", t.Scalar(t.Kind.OBJECT_ID), "_id"), t.Field("n", t.Scalar(t.Kind.LONG), "n")),
        )
    )
    tasks = [
        SourceScanTask("run", spec, collection, chunk, Mode.FULL, schema, 63, not_before)
        for chunk in plan_chunks(at, collection, 150)
    ]
    at.close()
    several, one = ProcessRunner(2), ThreadRunner()
    try:
        parts = [scanned(runner, tasks) for runner in (several, one)]
    finally:
        several.close()
    assert len(parts[0]) == len(tasks) == 5
    assert sum(len(part.rows) for part in parts[0].values()) == 600
    for number, part in parts[0].items():
        assert part.rows.equals(parts[1][number].rows)


def scanned(runner: Runner, tasks: list[SourceScanTask]) -> dict[int, ScannedPart]:
    parts: dict[int, ScannedPart] = {}
    runner.run(
        tasks,
        scan_source,
        lambda task, part: parts.update({task.chunk.number: part}),
        SimpleNamespace(check=lambda: None),
    )
    return parts


def test_borders_of_the_sources_own_sample_are_in_its_order(stack: Stack, database: Any) -> None:
    """Under a collation, upper and lower case are one order, which only the source knows."""
    database.create_collection("words", collation={"locale": "en", "strength": 3})
    words = [f"{letter}{i}" for i in range(20) for letter in "aBcDeF"]
    database["words"].insert_many([{"_id": word} for word in words])
    at = source(stack.mongodb_uri)
    reader = MongodbReader(at, Collection(database.name, "words"))
    order = [each for batch in reader.read(WHOLE, Throttle()) for each in batch]
    chunks = chunks_between([id_only(each) for each in order], len(words), 5)
    parts = [each for chunk in chunks for batch in reader.read(chunk, Throttle()) for each in batch]
    assert sorted(bson.decode(each)["_id"] for each in parts) == sorted(words)
    at.close()
