"""What is counted for a try to sign in, and how long it blocks."""

from __future__ import annotations

import pytest

from control_plane.services.login_guard import ADDRESS, NAME, PAIR, Attempt, Limit, network_of

pytestmark = pytest.mark.unit


def test_each_failure_past_the_free_ones_doubles_the_wait_up_to_the_cap() -> None:
    limit = Limit(free=3, cap_s=60)
    assert [limit.block_s(n) for n in range(1, 12)] == [0, 0, 0, 2, 4, 8, 16, 32, 60, 60, 60]
    assert limit.block_s(10**9) == 60


def test_a_name_alone_is_never_blocked_for_long() -> None:
    """Otherwise anybody could keep an admin out from anywhere."""
    assert NAME.cap_s <= 30
    assert NAME.free > PAIR.free
    assert PAIR.cap_s == ADDRESS.cap_s == 900


def test_who_guesses_a_password_for_a_day_gets_few_tries() -> None:
    day_s, tries, now_s = 86_400, 0, 0
    while now_s < day_s:
        tries += 1
        now_s += max(PAIR.block_s(tries), 0)
    assert tries < 110


def test_names_are_counted_without_being_kept_and_without_regard_to_case() -> None:
    attempt = Attempt.of("Hunter2-secret", "192.0.2.7")
    assert attempt == Attempt.of(" hunter2-SECRET ", "192.0.2.7")
    assert "hunter2" not in str(attempt).lower()
    assert attempt.name == Attempt.of("hunter2-secret", "192.0.2.8").name
    assert attempt.pair != Attempt.of("hunter2-secret", "192.0.2.8").pair
    assert Attempt.of("\ud800", None)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("testclient", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_address_counts_with_its_whole_network(address: str | None, network: str) -> None:
    assert network_of(address) == network
