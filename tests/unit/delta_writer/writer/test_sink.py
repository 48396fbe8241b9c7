"""Which batches a table needs, when another table of the same collection is further behind."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cdc_shared.delta.offsets import OffsetRange
from delta_writer.writer.sink import Sink

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("ranges", "has"),
    [
        ({0: (90, 100)}, True),
        ({0: (90, 101)}, False),
        ({0: (100, 110)}, False),
        ({0: (100, 100)}, False),  # a watermark of just here
        ({0: (95, 95)}, True),  # a watermark of before
        ({0: (90, 100), 1: (0, 10)}, False),
        ({1: (0, 0)}, False),
        ({}, False),
    ],
)
def test_a_batch_that_ends_before_where_the_table_stood_is_for_another(ranges, has):
    """Attacks I2."""
    sink = Sink("things", cast(Any, SimpleNamespace()), cast(Any, SimpleNamespace()), {0: 100})
    assert sink.has({partition: OffsetRange(*each) for partition, each in ranges.items()}) is has
