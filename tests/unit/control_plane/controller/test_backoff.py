"""How long is waited before what failed is tried again."""

from __future__ import annotations

import random

import pytest

from control_plane.controller.backoff import FIRST_WAIT_S, MAX_OUTAGE_WAIT_S, MAX_WAIT_S, STEADY_S, BackOff

pytestmark = pytest.mark.unit


def test_waits_double_up_to_a_maximum_and_differ(rng: random.Random) -> None:
    backoff = BackOff(rng)
    waits = [backoff.failed(100.0) - 100.0 for _ in range(40)]
    for n, wait_s in enumerate(waits):
        ceiling_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0**n)
        assert ceiling_s / 2 <= wait_s <= ceiling_s
    assert len(set(waits[10:])) > 20
    assert not backoff.is_due(100.0)
    assert backoff.is_due(100.0 + MAX_WAIT_S)


def test_what_is_away_is_asked_again_sooner(rng: random.Random) -> None:
    backoff = BackOff(rng)
    assert max(backoff.failed(0.0, is_outage=True) for _ in range(40)) <= MAX_OUTAGE_WAIT_S


def test_one_short_success_is_no_end_of_it(rng: random.Random) -> None:
    backoff = BackOff(rng)
    for _ in range(5):
        backoff.failed(0.0)
    backoff.went_well(10.0)
    backoff.went_well(10.0 + STEADY_S - 1)
    assert backoff.failures == 5
    backoff.went_well(10.0 + STEADY_S)
    assert backoff.failures == 0


def test_each_failure_begins_the_steady_time_anew(rng: random.Random) -> None:
    backoff = BackOff(rng)
    backoff.failed(0.0)
    backoff.went_well(1.0)
    backoff.failed(2.0)
    backoff.went_well(3.0)
    backoff.went_well(1.0 + STEADY_S)
    assert backoff.failures == 2
