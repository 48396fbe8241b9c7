"""What is known of the partitions, until a table carries it."""

import pytest

from delta_writer.watermark.claims import MAX_PENDING_CLAIMS, Claims

pytestmark = pytest.mark.unit


@pytest.fixture
def claims():
    return Claims()


def test_the_newest_time_that_the_offset_reaches(claims):
    for end, time_ms in ((10, 1000), (10, 2000), (30, 3000)):
        claims.add("t", 0, end, time_ms)
    assert [claims.reached("t", 0, offset) for offset in (9, 10, 29, 30, 99)] == [None, 2000, 2000, 3000, 3000]
    assert claims.reached("t", 1, 99) is None
    assert claims.reached("u", 0, 99) is None


def test_what_the_table_carries_is_done_with(claims):
    claims.add("t", 0, 10, 1000)
    claims.add("t", 0, 20, 2000)
    claims.add("t", 1, 5, 1000)
    claims.settle("t", {0: 1000, 1: 1000})
    assert (claims.reached("t", 0, 10), claims.reached("t", 0, 20), claims.reached("t", 1, 9)) == (None, 2000, None)
    claims.settle("t", {0: 2000})
    assert claims.topics() == []
    claims.settle("t", {0: 2000})


def test_time_that_goes_back_takes_later_claims_with_it(claims):
    """Attacks I12: after a restore of the source, changes older than the claim may come."""
    claims.add("t", 0, 10, 5000)
    claims.add("t", 0, 12, 3000)
    assert claims.reached("t", 0, 11) is None
    assert claims.reached("t", 0, 12) == 3000


def test_an_end_that_falls_is_not_believed(claims):
    claims.add("t", 0, 10, 1000)
    claims.add("t", 0, 8, 2000)
    assert claims.reached("t", 0, 9) is None
    assert claims.reached("t", 0, 10) == 2000


def test_a_writer_far_behind_keeps_few_claims_and_the_newest(claims):
    for number in range(10 * MAX_PENDING_CLAIMS):
        claims.add("t", 0, number, number)
    assert len(claims._pending["t"][0]) <= MAX_PENDING_CLAIMS
    newest = 10 * MAX_PENDING_CLAIMS - 1
    assert claims.reached("t", 0, newest) == newest
    for offset in range(0, newest, 97):
        reached = claims.reached("t", 0, offset)
        assert reached is None or reached <= offset
