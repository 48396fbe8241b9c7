"""What Debezium tells of snapshots, and what it amounts to; payloads as the real connector wrote them."""

import json

import pytest

from cdc_shared.snapshots.notifications import Notification, NotificationKind, SnapshotHistory, decode_notification

pytestmark = pytest.mark.unit


def payload(kind, at_ms=1, aggregate="Initial Snapshot", **data):
    return json.dumps(
        {
            "id": "0b4cd744-674a-4afd-9a9c-bb50a107caa3",
            "aggregate_type": aggregate,
            "type": kind,
            "additional_data": {"connector_name": "shop", **data},
            "timestamp": at_ms,
        }
    ).encode()


def scan(collection):
    return [
        payload("IN_PROGRESS", current_collection_in_progress=collection),
        payload("TABLE_SCAN_COMPLETED", scanned_collection=collection, status="SUCCEEDED"),
    ]


def history_of(*payloads):
    history = SnapshotHistory()
    for offset, value in enumerate(payloads):
        history.add(decode_notification(value, offset))
    return history


WHOLE = [payload("STARTED", 1000), *scan("shop.a"), *scan("shop.b"), payload("COMPLETED", 2000)]


def test_a_notification_is_read_as_debezium_writes_it():
    value = payload("TABLE_SCAN_COMPLETED", 7, scanned_collection="shop.a", status="SUCCEEDED")
    assert decode_notification(value, 3) == Notification(
        3, 7, NotificationKind.TABLE_SCAN_COMPLETED, "shop.a", scanned_whole=True
    )


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{}", b"not json", payload("STARTED", aggregate="Incremental Snapshot"), payload("SOMETHING_NEW")],
)
def test_what_is_no_such_notification_changes_nothing(value):
    assert decode_notification(value, 0) is None


def test_nothing_is_complete_before_anything_is_known():
    assert not history_of().is_complete("shop.a")


def test_a_snapshot_is_complete_when_all_of_it_is():
    for told in range(1, len(WHOLE)):
        history = history_of(*WHOLE[:told])
        assert not history.is_complete("shop.a")
        assert history.last_completed("shop.a") is None
    history = history_of(*WHOLE)
    assert history.is_complete("shop.a")
    assert history.last_completed("shop.a").started_ms == 1000


def test_a_collection_made_after_the_snapshot_is_complete_without_one():
    history = history_of(*WHOLE)
    assert history.is_complete("shop.later")
    assert history.last_completed("shop.later") is None


def test_a_connector_that_goes_on_from_its_offsets_has_taken_its_snapshot_before():
    history = history_of(payload("SKIPPED"))
    assert history.is_complete("shop.a")
    assert history.last_completed("shop.a") is None


def test_a_killed_attempt_counts_for_nothing_and_the_next_one_for_itself():
    history = history_of(payload("STARTED", 1), *scan("shop.a"), *WHOLE)
    assert history.last_completed("shop.a").started_ms == 1000
    assert not history_of(payload("STARTED", 1), *scan("shop.a"), payload("STARTED", 2)).is_complete("shop.a")


def test_an_aborted_attempt_counts_for_nothing():
    history = history_of(*WHOLE, payload("STARTED", 3000), *scan("shop.a"), payload("ABORTED"))
    assert history.last_completed("shop.a").started_ms == 1000
    assert history_of(payload("STARTED"), payload("ABORTED")).is_complete("shop.a") is False


def test_a_snapshot_of_one_collection_leaves_the_others_as_they_are():
    history = history_of(*WHOLE, payload("STARTED", 3000), *scan("shop.a"), payload("COMPLETED"))
    assert history.last_completed("shop.a").started_ms == 3000
    assert history.last_completed("shop.b").started_ms == 1000


def test_a_collection_that_was_not_read_to_its_end_is_not_swept():
    failed = payload("TABLE_SCAN_COMPLETED", scanned_collection="shop.a", status="SQL_EXCEPTION")
    history = history_of(payload("STARTED"), failed, payload("COMPLETED"))
    assert history.last_completed("shop.a") is None


def test_after_a_gap_only_a_later_snapshot_counts():
    history = history_of(*WHOLE)
    assert history.is_complete("shop.a", since=0)
    assert not history.is_complete("shop.a", since=1)
    assert history.last_completed("shop.a", since=1) is None
    assert not history.is_complete("shop.later", since=0)
