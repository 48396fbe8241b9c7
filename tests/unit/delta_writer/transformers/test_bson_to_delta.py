"""Events to rows: what a table that stands further on leaves out, and what a history takes."""

import json
import random
from collections.abc import Mapping

import pytest

from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.documents import DocumentSchema
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.change_batch import ChangeEvents

pytestmark = pytest.mark.unit

NOTHING = DocumentSchema(())
Event = tuple[int, int, str, str | None]


def events_of(events: list[Event], ranges: Mapping[int, tuple[int, int]]) -> ChangeEvents:
    """Events as (partition, offset, key, document)."""
    return ChangeEvents(
        keys=[key for _, _, key, _ in events],
        documents=[document for *_, document in events],
        source_ts_ms=[1_700_000_000_000 + i for i in range(len(events))],
        partitions=[partition for partition, *_ in events],
        offsets=[offset for _, offset, *_ in events],
        ops=["d" if document is None else "u" for *_, document in events],
        ranges={partition: OffsetRange(*each) for partition, each in ranges.items()},
        watermarks=dict.fromkeys(ranges, 1),
    )


def test_what_a_table_has_is_left_out_by_partition():
    """Attacks I2: each of two tables is ahead in another partition."""
    rng = random.Random(7)
    events = [
        (partition, offset, f"{partition}{rng.randrange(4)}", None if rng.random() < 0.3 else json.dumps({"n": offset}))
        for offset in range(10, 20)
        for partition in range(3)
    ]
    decoded = decode_events(events_of(events, {0: (10, 20), 1: (8, 20), 2: (10, 20)}), NOTHING)
    stands = {0: 14, 1: 8, 2: 30}
    left = [event for event in events if event[1] >= stands[event[0]]]

    history = encode_batch(decoded, NOTHING, stands, history=True)
    rows = history.rows.select(["_cdc_partition", "_cdc_offset", "_cdc_op", "n"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (partition, offset, "d" if document is None else "u", None if document is None else offset)
        for partition, offset, _, document in left
    ]
    assert history.ranges == {0: OffsetRange(14, 20), 1: OffsetRange(8, 20)}
    assert history.watermarks == {0: 1, 1: 1}

    current = encode_batch(decoded, NOTHING, stands)
    last = {key: (offset, document) for _, offset, key, document in left}
    assert {row["_cdc_key"]: row["_cdc_offset"] for row in current.rows.to_pylist()} == {
        key: offset for key, (offset, document) in last.items() if document is not None
    }
    assert sorted(current.deleted_keys) == sorted(key for key, (_, document) in last.items() if document is None)
    assert current.ranges == history.ranges


def test_a_table_at_the_end_of_a_range_takes_its_watermark_alone():
    decoded = decode_events(events_of([(0, 5, "k", '{"n": 1}')], {0: (5, 6), 1: (3, 3)}), NOTHING)
    encoded = encode_batch(decoded, NOTHING, {0: 6, 1: 3})
    assert (encoded.rows.num_rows, encoded.ranges) == (0, {0: OffsetRange(6, 6), 1: OffsetRange(3, 3)})
    assert encoded.watermarks == {0: 1, 1: 1}


def test_columns_do_not_depend_on_what_is_left_out():
    decoded = decode_events(events_of([(0, 5, "k", '{"n": 1}'), (0, 6, "k", '{"m": "x"}')], {0: (5, 7)}), NOTHING)
    for history in (False, True):
        assert {"n", "m"} <= set(encode_batch(decoded, NOTHING, {0: 6}, history=history).rows.column_names)


def test_documents_that_are_none_have_no_row_anywhere():
    decoded = decode_events(
        events_of([(0, 5, "k", '{"n": 1}'), (0, 6, "k", "{broken"), (0, 7, "j", None)], {0: (5, 8)}), NOTHING
    )
    assert list(decoded.rejected) == [1]
    assert encode_batch(decoded, NOTHING).rows["_cdc_offset"].to_pylist() == [5]
    assert encode_batch(decoded, NOTHING, history=True).rows["_cdc_offset"].to_pylist() == [5, 7]
