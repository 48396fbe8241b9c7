"""Batches close on rows, bytes or time, and cover every offset exactly once."""

from dataclasses import dataclass

import pytest

from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.models.common import BatchSpec
from delta_writer.consumer.event_consumer import PartitionEnd
from delta_writer.watermark.claims import Claims
from delta_writer.writer.batch_processor import IDLE_COMMIT_S, MAX_ALONE_AT_ONCE, BatchProcessor

pytestmark = pytest.mark.unit


@dataclass
class Record:
    """What the processor reads of a Kafka message."""

    at: tuple[str, int, int]
    size: int = 10

    def topic(self):
        return self.at[0]

    def partition(self):
        return self.at[1]

    def offset(self):
        return self.at[2]

    def headers(self):
        return None

    def key(self):
        return b"k"

    def value(self):
        return b"v" * (self.size - 1)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def claims():
    return Claims()


def processor(clock, claims=None, **limits):
    batches = BatchProcessor(BatchSpec(**limits), clock, claims)
    batches.start_at("t", 0, 5)
    return batches


def test_a_batch_closes_on_rows(clock):
    batches = processor(clock, max_rows=2)
    batches.add([Record(("t", 0, 5))])
    assert batches.due() == []
    batches.add([Record(("t", 0, 6))])
    (batch,) = batches.due()
    assert batch.ranges == {0: OffsetRange(5, 7)}
    assert batches.due() == []


def test_a_batch_closes_on_bytes(clock):
    batches = processor(clock, max_bytes=65536)
    batches.add([Record(("t", 0, 5), size=65536)])
    assert len(batches.due()) == 1


def test_a_batch_closes_on_time(clock):
    batches = processor(clock, max_seconds=2)
    batches.add([Record(("t", 0, 5))])
    clock.now += 1.9
    assert batches.due() == []
    clock.now += 0.2
    assert len(batches.due()) == 1


def test_gaps_belong_to_the_range(clock):
    batches = processor(clock, max_rows=1)
    batches.add([Record(("t", 0, 9))])
    assert batches.due()[0].ranges == {0: OffsetRange(5, 10)}


def test_records_before_the_position_or_of_other_partitions_are_dropped(clock):
    batches = processor(clock, max_rows=1)
    batches.add([Record(("t", 0, 4)), Record(("t", 1, 4)), Record(("u", 0, 0))])
    assert batches.take_all() == []


def test_a_range_without_changes_joins_the_next_batch(clock):
    batches = processor(clock, max_rows=1)
    batches.add([Record(("t", 0, 5))])
    (first,) = batches.due()
    batches.not_committed(first)
    batches.add([Record(("t", 0, 6))])
    (second,) = batches.due()
    assert (second.ranges, second.must_commit) == ({0: OffsetRange(5, 7)}, False)
    batches.committed(second)
    batches.add([Record(("t", 0, 7))])
    assert batches.due()[0].ranges == {0: OffsetRange(7, 8)}


def test_a_range_without_changes_is_committed_alone_after_a_while(clock):
    batches = processor(clock, max_rows=1)
    batches.add([Record(("t", 0, 5))])
    batches.not_committed(batches.due()[0])
    clock.now += IDLE_COMMIT_S - 1
    assert batches.due() == []
    clock.now += 1
    (idle,) = batches.due()
    assert (len(idle), idle.ranges, idle.must_commit) == (0, {0: OffsetRange(5, 6)}, True)
    batches.committed(idle)
    clock.now += 2 * IDLE_COMMIT_S
    assert batches.due() == []


def test_a_clean_stop_takes_ranges_without_changes_too(clock):
    batches = processor(clock, max_rows=1)
    batches.add([Record(("t", 0, 5))])
    batches.not_committed(batches.due()[0])
    (idle,) = batches.take_all()
    assert idle.must_commit


def test_discarding_reads_everything_uncommitted_again(clock):
    batches = processor(clock)
    batches.start_at("t", 1, 0)
    batches.add([Record(("t", 0, 5)), Record(("t", 1, 0))])
    assert batches.discard("t") == {0: 5, 1: 0}
    assert batches.take_all() == []
    batches.add([Record(("t", 0, 5))])
    assert batches.take_all()[0].ranges == {0: OffsetRange(5, 6)}


def test_a_partition_taken_away_drops_the_open_batch_of_its_topic(clock):
    batches = processor(clock)
    batches.start_at("t", 1, 0)
    batches.add([Record(("t", 0, 5)), Record(("t", 1, 0))])
    assert batches.forget("t", 0) == {1: 0}
    batches.add([Record(("t", 0, 6)), Record(("t", 1, 0))])
    assert batches.take_all()[0].ranges == {1: OffsetRange(0, 1)}


def test_a_partition_given_back_while_its_batch_was_in_hand_is_not_read_twice(clock):
    batches = processor(clock, max_rows=2)
    batches.add([Record(("t", 0, 5)), Record(("t", 0, 6))])
    (batch,) = batches.due()
    batches.forget("t", 0)
    batches.start_at("t", 0, 5)  # the table still stood there when the partition came back
    batches.committed(batch)
    batches.add([Record(("t", 0, 5)), Record(("t", 0, 6)), Record(("t", 0, 7)), Record(("t", 0, 8))])
    (following,) = batches.due()
    assert following.offsets == [7, 8]
    assert following.ranges == {0: OffsetRange(7, 9)}


def test_any_history_covers_every_offset_once(clock, rng):
    batches = BatchProcessor(BatchSpec(max_rows=3), clock)
    stands = {0: 0, 1: 0}
    for partition in stands:
        batches.start_at("t", partition, 0)
    ends = {0: 0, 1: 0}
    for _ in range(500):
        partition = rng.randrange(2)
        ends[partition] += rng.randint(1, 3)
        batches.add([Record(("t", partition, ends[partition] - 1))])
        clock.now += rng.choice([0, 0, 1, 70])
        for batch in batches.due():
            outcome = rng.random()
            if outcome < 0.5 or batch.must_commit:
                for each, part in batch.ranges.items():
                    assert part.start == stands[each]
                    stands[each] = part.end
                batches.committed(batch)
            elif outcome < 0.8:
                batches.not_committed(batch)
            else:
                assert batches.discard("t") == stands
                for each, begin in stands.items():
                    batches.add([Record(("t", each, offset)) for offset in range(begin, ends[each])])
    for batch in batches.take_all():
        for each, part in batch.ranges.items():
            assert part.start == stands[each]
            stands[each] = part.end
    assert stands == ends


def test_what_lies_before_a_partitions_end_joins_the_next_batch(clock):
    """Attacks I2: transaction markers are no messages, and belong to a range all the same."""
    batches = processor(clock, max_rows=1)
    batches.add([Record(("t", 0, 5)), PartitionEnd("t", 0, 7)])
    (batch,) = batches.due()
    assert batch.ranges == {0: OffsetRange(5, 7)}
    batches.committed(batch)
    batches.add([PartitionEnd("t", 0, 8), Record(("t", 0, 8)), PartitionEnd("t", 0, 10)])
    assert batches.due()[0].ranges == {0: OffsetRange(7, 10)}


def test_an_end_alone_is_committed_after_a_while(clock):
    batches = processor(clock)
    batches.add([PartitionEnd("t", 0, 6), PartitionEnd("t", 0, 5), PartitionEnd("t", 1, 9), PartitionEnd("u", 0, 9)])
    assert batches.due() == []
    clock.now += IDLE_COMMIT_S
    (idle,) = batches.due()
    assert (idle.ranges, idle.must_commit) == ({0: OffsetRange(5, 6)}, True)


def test_a_watermark_rides_with_the_batch_that_reaches_far_enough(clock, claims):
    """Attacks I12."""
    batches = processor(clock, claims, max_rows=1)
    claims.add("t", 0, 7, 1000)
    batches.add([Record(("t", 0, 5))])
    (first,) = batches.due()
    assert (first.watermarks, first.must_commit) == ({}, False)
    batches.committed(first)
    batches.add([Record(("t", 0, 6))])
    (second,) = batches.due()
    assert (second.watermarks, second.must_commit) == ({0: 1000}, True)
    batches.committed(second)
    assert batches.due() == []


def test_a_quiet_topic_makes_a_batch_for_its_watermark(clock, claims):
    batches = processor(clock, claims)
    claims.add("t", 0, 6, 1000)
    assert batches.due() == []
    batches.add([PartitionEnd("t", 0, 6)])
    (batch,) = batches.due()
    assert (len(batch), batch.ranges, batch.watermarks, batch.must_commit) == (
        0,
        {0: OffsetRange(5, 6)},
        {0: 1000},
        True,
    )
    batches.committed(batch)
    claims.add("t", 0, 6, 2000)
    (batch,) = batches.due()
    assert (batch.ranges, batch.watermarks) == ({0: OffsetRange(6, 6)}, {0: 2000})


def test_a_watermark_alone_waits_for_every_partition(clock, claims):
    """The table's is the minimum: one partition's alone would be a commit for nothing."""
    batches = processor(clock, claims)
    batches.start_at("t", 1, 0)
    claims.add("t", 0, 5, 1000)
    claims.add("t", 1, 1, 1000)
    assert batches.due() == []
    batches.add([PartitionEnd("t", 1, 1)])
    assert batches.due()[0].watermarks == {0: 1000, 1: 1000}


def test_quiet_topics_take_turns_and_a_busy_one_does_not_wait_for_them(clock, claims):
    batches = BatchProcessor(BatchSpec(max_rows=1), clock, claims)
    quiet = [f"quiet{number}" for number in range(2 * MAX_ALONE_AT_ONCE + 1)]
    for topic in [*quiet, "busy"]:
        batches.start_at(topic, 0, 5)
    taken = []
    for round_ in range(3):
        for topic in quiet:
            claims.add(topic, 0, 5, 1000 + round_)
        batches.add([Record(("busy", 0, 5 + round_))])
        first, *alone = batches.due()
        assert first.topic == "busy"
        assert len(alone) <= MAX_ALONE_AT_ONCE
        for batch in [first, *alone]:
            batches.committed(batch)
        taken += [batch.topic for batch in alone]
    assert sorted(set(taken)) == sorted(quiet), "new watermarks of the first ones do not keep the last ones waiting"


def test_an_open_batch_is_not_closed_for_a_watermark(clock, claims):
    batches = processor(clock, claims, max_seconds=60)
    batches.add([Record(("t", 0, 5))])
    claims.add("t", 0, 6, 1000)
    assert batches.due() == []


def test_a_watermark_that_cannot_be_committed_is_not_tried_for_ever(clock, claims):
    batches = processor(clock, claims)
    claims.add("t", 0, 5, 1000)
    batches.not_committed(batches.due()[0])
    assert batches.due() == []


def test_a_partition_assigned_anew_inherits_no_watermark(clock, claims):
    """Attacks I12: it may be of another topic under the same name."""
    batches = processor(clock, claims)
    claims.add("t", 0, 5, 1000)
    batches.start_at("t", 0, 5)
    assert batches.due() == []
