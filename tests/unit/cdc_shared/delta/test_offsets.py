"""The fence, and where reading begins."""

import pytest

from cdc_shared.delta.offsets import ChangeTopic, Fenced, OffsetRange, check_fence, start_offset
from cdc_shared.errors import ResyncNeeded

pytestmark = pytest.mark.unit

TOPIC = ChangeTopic("p.db.c", "id1", 2)


def test_a_batch_must_begin_where_the_table_stands():
    check_fence({"cdc:id1:0": 5}, TOPIC, {0: OffsetRange(5, 9), 1: OffsetRange(0, 3)})
    for begin in (4, 6):
        with pytest.raises(Fenced):
            check_fence({"cdc:id1:0": 5}, TOPIC, {0: OffsetRange(begin, 9)})


@pytest.mark.parametrize(
    ("txns", "low", "high", "expected"),
    [
        ({}, 0, 0, 0),
        ({}, 0, 10, 0),
        ({"cdc:id1:0": 7}, 0, 10, 7),
        ({"cdc:id1:0": 10}, 10, 10, 10),
        ({"cdc:id1:1": 4}, 0, 10, 0),
        ({"another-app": 4}, 0, 10, 0),
    ],
)
def test_reading_begins_where_the_table_stands(txns, low, high, expected):
    assert start_offset(txns, TOPIC, 0, low, high) == expected


@pytest.mark.parametrize(
    ("txns", "low", "high", "why"),
    [
        ({}, 3, 10, "retention"),
        ({"cdc:id1:0": 7}, 8, 10, "retention"),
        ({"cdc:id1:0": 11}, 0, 10, "lost records"),
        ({"cdc:old:0": 4}, 0, 10, "made again"),
    ],
)
def test_what_is_gone_is_never_skipped(txns, low, high, why):
    with pytest.raises(ResyncNeeded, match=rf"resync needed.*{why}"):
        start_offset(txns, TOPIC, 0, low, high)
