"""What a record of the sentinel's topic says."""

import json
from typing import Any

import pytest

from delta_writer.watermark.sentinel import Sentinel, SentinelTopicTaken, read_sentinel

pytestmark = pytest.mark.unit


def record(op: str = "u", collection: str = "cdc_heartbeat", **parts: Any) -> bytes:
    """A record as Debezium writes it; the values were captured from the real connector."""
    event = {
        "before": None,
        "after": '{"_id": "p","written": 2,"source_time": "1795423842 w2"}',
        "updateDescription": {
            "removedFields": None,
            "updatedFields": '{"source_time": "1795423841 w1"}',
            "truncatedArrays": None,
        },
        "source": {"connector": "mongodb", "ts_ms": 1795423841423, "snapshot": "false", "collection": collection},
        "op": op,
    }
    return json.dumps(event | parts).encode()


def test_the_time_is_what_the_update_set_not_what_was_looked_up_later() -> None:
    """Attacks I12: the document beside the update may be of a later sentinel."""
    assert read_sentinel(record()) == Sentinel(1_795_423_841_000, "w1")


@pytest.mark.parametrize(
    "value",
    [
        record("r", updateDescription=None),
        record("c", updateDescription=None),
        record("d", updateDescription=None, after=None),
        record(updateDescription={"updatedFields": '{"written": 3}'}),
        record(updateDescription={"updatedFields": None}),
        record(updateDescription={"updatedFields": '{"source_time": 17}'}),
        record(updateDescription={"updatedFields": '{"source_time": "soon w1"}'}),
        record(updateDescription={"updatedFields": "[]"}),
        record(updateDescription={"updatedFields": "{"}),
        b"",
        b"[]",
        b'{"op": "u"}',
        b'{"op": "u", "source": null, "updateDescription": null}',
    ],
)
def test_other_records_say_nothing(value: bytes) -> None:
    """Attacks I12: what a snapshot read, above all, has no place in the stream."""
    assert read_sentinel(value) is None


def test_another_collection_in_the_topic_is_not_lost_in_silence() -> None:
    with pytest.raises(SentinelTopicTaken, match=r"the collection cdc heartbeat .* rename it"):
        read_sentinel(record(collection="cdc heartbeat"))
