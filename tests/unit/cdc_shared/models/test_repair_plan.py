"""What a repair is planned to do: every key that was found is accounted for once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_shared.models.reconciliation import DifferenceKind
from cdc_shared.models.repair_plan import NOT_ASKED_FOR, REPAIRABLE, UNKNOWN_ID, WHY_NOT, plan_repair

pytestmark = pytest.mark.unit

COUNTS = st.dictionaries(st.tuples(st.sampled_from(DifferenceKind), st.booleans()), st.integers(1, 10**7))


@given(COUNTS, st.sets(st.sampled_from(REPAIRABLE)))
def test_every_key_is_either_repaired_or_told_why_not(
    counts: Mapping[tuple[DifferenceKind, bool], int], kinds: set[DifferenceKind]
) -> None:
    planned = plan_repair(counts, kinds)
    assert planned.keys == sum(planned.by_kind.values())
    assert planned.keys + sum(each.keys for each in planned.not_repairable) == sum(counts.values())
    assert planned.by_kind.keys() <= kinds
    for each in planned.not_repairable:
        assert each.reason in {*WHY_NOT.values(), NOT_ASKED_FOR, UNKNOWN_ID}
        assert (each.reason == WHY_NOT.get(each.kind)) == (each.kind not in REPAIRABLE)


def test_every_kind_is_repairable_or_says_why_not() -> None:
    assert set(REPAIRABLE) | WHY_NOT.keys() == set(DifferenceKind)
    assert not set(REPAIRABLE) & WHY_NOT.keys()


def test_a_row_whose_document_is_not_known_is_left() -> None:
    planned = plan_repair({(DifferenceKind.EXTRA, False): 2, (DifferenceKind.EXTRA, True): 5}, REPAIRABLE)
    assert planned.by_kind == {DifferenceKind.EXTRA: 5}
    ((kind, keys, reason),) = [(each.kind, each.keys, each.reason) for each in planned.not_repairable]
    assert (kind, keys, reason) == (DifferenceKind.EXTRA, 2, UNKNOWN_ID)
