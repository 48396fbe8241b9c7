"""Both sides choose the same keys, and in turns all of them."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_shared.delta.key_hash import hash_keys
from reconciliation.sources.key_selection import KeySelection

pytestmark = pytest.mark.unit

KEYS = [str(number) for number in range(1_000)]


def chosen(selection: KeySelection) -> set[str]:
    return {key for key, is_chosen in zip(KEYS, selection.chosen(hash_keys(KEYS)), strict=True) if is_chosen}


@pytest.mark.parametrize("share", [1.0, 0.5, 0.3, 0.05])
def test_every_key_has_its_turn_once(share: float) -> None:
    turns = round(1 / share)
    each = [chosen(KeySelection.of([], share, rotation)) for rotation in range(turns)]
    assert sum(map(len, each)) == len(KEYS)
    assert set.union(*each) == set(KEYS)
    assert chosen(KeySelection.of([], share, turns)) == each[0]
    assert all(0.5 * share < len(keys) / len(KEYS) < 2 * share for keys in each)


def test_changed_keys_are_chosen_whatever_the_turn() -> None:
    changed = KEYS[::100]
    assert chosen(KeySelection.of(changed, 0.0, 3)) == set(changed)
    assert set(changed) <= chosen(KeySelection.of(changed, 0.1, 3))


def test_nothing_to_choose_is_no_key_but_those_that_are_none() -> None:
    selection = KeySelection.of([], 0.0, 0)
    assert chosen(selection) == set()
    assert selection.chosen(np.zeros((2, 2), np.uint64)).all()
