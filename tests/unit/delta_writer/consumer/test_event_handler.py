"""Records become events, or dead letters with a reason; nothing in between."""

import json

import pytest

from cdc_shared.models.collection import Collection
from delta_writer.consumer.event_handler import dead_letter, read_events
from delta_writer.writer.batch_processor import RecordBatch

pytestmark = pytest.mark.unit

SOURCE = {"ts_ms": 1_700_000_000_000, "db": "db", "collection": "things"}
KEY = b'{"id": "1"}'


def value(op, after):
    return json.dumps({"op": op, "after": after, "source": SOURCE}).encode()


def batch_of(*records):
    batch = RecordBatch("t", 0.0)
    for offset, (key, content) in enumerate(records):
        batch.keys.append(key)
        batch.values.append(content)
        batch.partitions.append(0)
        batch.offsets.append(offset)
    return batch


def test_what_changes_a_row_is_an_event():
    batch = batch_of((KEY, value("c", '{"_id": 1}')), (KEY, value("d", None)), (KEY, None), (KEY, value("u", None)))
    read = read_events(batch)
    assert read.events.documents == ['{"_id": 1}', None]
    assert read.events.offsets == [0, 1]
    assert read.positions == [0, 1]
    assert read.events.ops == ["c", "d"]
    assert read.collections == {Collection("db", "things")}
    assert read.rejected == {}


@pytest.mark.parametrize(
    ("key", "content"),
    [
        (KEY, b"\xff\xfe not json"),
        (KEY, b""),
        (KEY, b"[]"),
        (KEY, b'{"after": null}'),
        (KEY, value("t", None)),
        (KEY, value("c", None)),
        (None, value("c", '{"_id": 1}')),
        (b"not json", value("c", '{"_id": 1}')),
        (b'{"id": "{"}', value("d", None)),
        (b'{"id": 5}', value("c", '{"_id": 1}')),
        (KEY, value("c", '{"_id": 1}') + value("c", '{"_id": 2}')),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_and_the_rest_goes_on(key, content):
    batch = batch_of((KEY, value("c", '{"_id": 1}')), (key, content), (KEY, value("d", None)))
    read = read_events(batch)
    assert list(read.rejected) == [1]
    assert read.events.offsets == [0, 2]
    letter = dead_letter(batch, 1, read.rejected[1])
    assert (letter.key, letter.value, letter.offset) == (key, content, 1)
    assert "_id" not in letter.rejection.message
