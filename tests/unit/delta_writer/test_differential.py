"""Any history, split into batches in any way, gives the same rows in both modes and in a plain dict."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.unit

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([0.5, -2.25, 3.0, 1e18]),
    st.text(max_size=3),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    max_leaves=4,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)
changes = st.tuples(st.integers(0, 6), documents | st.none())
histories = st.lists(st.lists(changes, min_size=1, max_size=8), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories, duplicates=st.lists(st.integers(0, 4), max_size=2), restart_before=st.integers(0, 5))
def test_any_history_equals_the_model(new_table, history: list[Any], duplicates: list[int], restart_before: int):
    tables = [new_table("deletion_vectors"), new_table("copy_on_write")]
    for table in tables:
        writer = table.open()
        for number, batch in enumerate(history):
            if number == restart_before:
                writer = table.open()
            table.apply(writer, batch)
            if number in duplicates:  # Debezium sends the batch again, at later offsets
                table.apply(writer, batch)
        table.assert_equals_model(writer)
    assert tables[0].model == tables[1].model
