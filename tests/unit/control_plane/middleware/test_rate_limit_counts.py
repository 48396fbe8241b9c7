"""Counting requests holds nobody up, and what has expired is forgotten."""

import threading
from typing import Any

import pytest
from waiting import wait_until

from control_plane.middleware import rate_limits
from control_plane.middleware.rate_limits import RateLimits

pytestmark = pytest.mark.unit


def test_no_request_starts_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RateLimits("1000000/minute", "10/minute")
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
    for n in range(1000):
        limits.count_request(f"192.0.2.{n % 100}")
    assert started == []


def test_what_has_expired_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "FORGET_EVERY_S", 0.0)
    limits = RateLimits("5/second", "10/minute")
    for n in range(100):
        limits.count_request(f"192.0.2.{n}")
    storage: Any = limits._limiter.storage
    assert len(storage.storage) == 100

    def is_forgotten() -> bool:
        storage._MemoryStorage__schedule_expiry()
        return len(storage.storage) == 0

    wait_until(is_forgotten, 10.0, "a window of one second has passed")
