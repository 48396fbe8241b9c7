"""A chunk is read once, whatever happens to the source meanwhile, and never as it was too early."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Timestamp
from fake_collection import FakeCollection
from pymongo import ReadPreference
from pymongo.read_preferences import Nearest

from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.collection import Collection
from reconciliation.reconciler.progress import Cancelled
from reconciliation.sources.chunks import ALL, Chunk
from reconciliation.sources.mongodb_reader import GIVE_UP_AFTER_S, DocumentCount, MongodbReader
from reconciliation.sources.throttle import Throttle
from reconciliation.workers.checkpoint import checkpoints

pytestmark = pytest.mark.unit

ORDERS = Collection("shop", "orders")
WHOLE = Chunk(0, ALL)
EARLY, LATE = Timestamp(1_000, 1), Timestamp(2_000, 1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reader(source: FakeCollection, **options: Any) -> MongodbReader:
    clock = Clock()
    return MongodbReader(source, ORDERS, clock=clock, sleep=clock.sleep, **options)  # type: ignore[arg-type]


def small_batches() -> Throttle:
    return Throttle(20, clock=Clock(), sleep=lambda _: None)  # ten documents


def read(reader: MongodbReader, chunk: Chunk = WHOLE) -> list[dict[str, Any]]:
    return [bson.decode(each) for batch in reader.read(chunk, small_batches()) for each in batch]


def collection(count: int = 95) -> FakeCollection:
    return FakeCollection([{"_id": i, "n": f"document {i}"} for i in range(count)])


def test_every_document_is_read_in_order() -> None:
    source = collection()
    assert read(reader(source)) == source.documents
    assert source.closed_cursors == 1
    assert all(session.ended for session in source.sessions)


@pytest.mark.parametrize("at", [0, 1, 5, 9, 10])
def test_the_reading_goes_on_behind_the_last_document_when_the_source_fails(at: int) -> None:
    source = collection()
    source.failures = {at: Transient("away"), at + 1: Transient("still away")}
    reading = reader(source)
    assert read(reading) == source.documents
    assert reading.retries == 2
    queries = [each["query"] for each in source.cursors]
    assert queries[0] == {}
    if at:
        assert queries[-1]["$or"][0]["_id"]["$gt"] == min(at * 10, 95) - 1


def test_what_stays_away_fails_the_chunk() -> None:
    source = collection()
    source.failures = dict.fromkeys(range(3, 10_000), Transient("away"))
    reading = reader(source)
    batches: list[list[bytes]] = []
    with pytest.raises(Transient, match="away"):
        batches.extend(reading.read(WHOLE, small_batches()))
    assert len(batches) == 3
    assert reading._clock() > GIVE_UP_AFTER_S
    assert all(session.ended for session in source.sessions)


def test_what_no_waiting_cures_fails_at_once() -> None:
    source = collection()
    source.snapshots = Fatal("no snapshots")
    source.failures = {1: Fatal("not authorized")}
    with pytest.raises(Fatal, match="not authorized"):
        read(reader(source))


def test_without_snapshots_the_causal_order_is_kept() -> None:
    source = collection()
    source.snapshots = Fatal("this server has no snapshots")
    reading = reader(source, not_before=LATE)
    assert read(reading) == source.documents
    assert reading.retries == 0
    assert [(each.at_snapshot, each.causal, each.not_before) for each in source.sessions] == [
        (True, False, None),
        (False, True, LATE),
    ]
    assert source.options["read_concern"].level == "majority"


def test_a_snapshot_that_the_source_gives_up_is_left_where_it_stands() -> None:
    source = collection()
    source.snapshots = LATE
    source.failures = {4: Fatal("no more of this snapshot")}
    assert read(reader(source, not_before=LATE)) == source.documents
    assert [each.at_snapshot for each in source.sessions] == [True, False]


def test_a_snapshot_from_before_what_must_be_read_is_not_used() -> None:
    source = collection()
    source.snapshots = EARLY
    assert read(reader(source, not_before=LATE)) == source.documents
    assert source.sessions[-1].not_before == LATE


def test_a_snapshot_that_is_late_enough_is_used() -> None:
    source = collection()
    source.snapshots = LATE
    assert read(reader(source, not_before=LATE)) == source.documents
    assert [each.at_snapshot for each in source.sessions] == [True]


def test_after_a_failure_the_reading_still_asks_for_what_is_late_enough() -> None:
    source = collection()
    source.snapshots = LATE
    source.failures = {2: Transient("snapshot too old")}
    assert read(reader(source, not_before=LATE)) == source.documents
    assert source.sessions[-1].not_before == LATE


def test_secondaries_are_read_unless_the_connection_string_names_others() -> None:
    source = collection(3)
    read(reader(source))
    assert source.options["read_preference"].name == "SecondaryPreferred"
    assert source.options["read_preference"].max_staleness == 120
    source.preference = Nearest(tag_sets=[{"use": "analytics"}])
    read(reader(source))
    assert source.options["read_preference"] == source.preference


def test_keys_alone_are_asked_for_when_only_they_are_wanted() -> None:
    source = collection(3)
    assert read(reader(source, keys_only=True)) == [{"_id": 0}, {"_id": 1}, {"_id": 2}]


def test_a_cancelled_run_leaves_no_cursor() -> None:
    source = collection()

    def cancelled() -> None:
        if len(batches) == 2:
            raise Cancelled

    batches: list[list[bytes]] = []
    with checkpoints(cancelled), pytest.raises(Cancelled):
        batches.extend(batch for batch in iterated(reader(source), batches))
    assert source.closed_cursors == 1


def iterated(reading: MongodbReader, batches: list[Any]) -> Any:
    for batch in reading.read(WHOLE, small_batches()):
        batches.append(batch)
        yield batch


def test_documents_are_counted_or_as_the_source_noted_them() -> None:
    source = collection(7)
    assert reader(source).count() == DocumentCount(7, exact=True)
    source.counted = Transient("it takes too long")
    assert reader(source).count() == DocumentCount(7, exact=False)
    source.counted = Fatal("not authorized")
    with pytest.raises(Fatal):
        reader(source).count()


def test_the_operation_time_is_the_primarys() -> None:
    source = collection(0)
    assert reader(source).operation_time() == Timestamp(1_900_000_000, 7)
    assert source.commands == [("ping", ReadPreference.PRIMARY)]
