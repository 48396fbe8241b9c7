"""Every state of a small model of commit, fence, rebase, rewrite and sweep. Attacks I1 to I6, I8, I9 and I14."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commit_protocol.explorer import CounterExample, explore
from commit_protocol.protections import Protection
from commit_protocol.scopes import MUTATIONS, SCOPES

pytestmark = pytest.mark.unit

LONGEST_TRACE = 14


@pytest.mark.parametrize("scope", SCOPES)
def test_every_state_keeps_the_invariants(scope: str, measured: Callable[[str, float, str], None]) -> None:
    explored = explore(SCOPES[scope])
    assert explored.transitions > explored.states > 1_000, "the model has lost most of what it looked at"
    measured(f"model, {scope}", explored.states, "states")


@pytest.mark.parametrize("protection", Protection, ids=lambda each: each.name)
def test_without_a_protection_an_invariant_falls(protection: Protection) -> None:
    invariant, model = MUTATIONS[protection]
    with pytest.raises(CounterExample) as found:
        explore(model)
    print(f"without {protection.name} ({protection.value}):\n{found.value}")
    assert found.value.invariant == invariant
    assert len(found.value.trace) <= LONGEST_TRACE, "too long to be understood"
