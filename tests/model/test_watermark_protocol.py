"""Every state of a small model of the watermark. Attacks I12."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commit_protocol.explorer import CounterExample
from commit_protocol.search import search
from watermark_protocol import Safeguard, State, Watermarks, check, is_finished

pytestmark = pytest.mark.unit


def look(model: Watermarks) -> int:
    """How many states there are. Raises `CounterExample`."""
    return search(State(), model.steps, check, is_finished)


def test_no_state_claims_too_much_and_the_last_time_is_always_reached(
    measured: Callable[[str, float, str], None],
) -> None:
    states = look(Watermarks())
    assert states > 5_000, "the model has lost most of what it looked at"
    measured("model, watermark", states, "states")


@pytest.mark.parametrize("safeguard", Safeguard, ids=lambda each: each.name)
def test_without_a_safeguard_too_much_is_claimed(safeguard: Safeguard) -> None:
    with pytest.raises(CounterExample) as found:
        look(Watermarks(frozenset(Safeguard) - {safeguard}))
    print(f"without {safeguard.name} ({safeguard.value}):\n{found.value}")
    assert found.value.invariant == "I12"
