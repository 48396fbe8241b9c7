"""The chain of the audit trail: whatever is done to it afterwards shows, and where."""

import dataclasses
import hashlib
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from control_plane.models.audit import Action, AuditEntry, Outcome
from control_plane.models.audit_chain import GENESIS, MAX_TEXT_CHARS, ChainedEntry, Head, chain, entry_hash, first_break

pytestmark = pytest.mark.unit

START = Head(0, GENESIS)
ENTRY = AuditEntry(
    at=datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
    user_id="9c3a1f6e-0000-4000-8000-000000000001",
    user="ada",
    roles=("admin", "auditor"),
    action=Action.PIPELINE_CREATE,
    resource="shop",
    outcome=Outcome.REFUSED,
    status=409,
    code="conflict",
    request_id="r-1",
    address="10.0.0.7",
    duration_ms=12.345,
)
CHANGES: dict[str, Any] = {
    "at": ENTRY.at + timedelta(microseconds=1),
    "user_id": "9c3a1f6e-0000-4000-8000-000000000002",
    "user": "eve",
    "roles": ("admin",),
    "action": Action.PIPELINE_READ,
    "resource": None,
    "outcome": Outcome.ALLOWED,
    "status": 201,
    "code": None,
    "request_id": "another",
    "address": "10.0.0.8",
    "duration_ms": 12.346,
}


def entries(count: int) -> list[ChainedEntry]:
    return chain(START, [dataclasses.replace(ENTRY, request_id=f"r-{n}") for n in range(count)])


def test_the_form_of_a_hash_never_changes() -> None:
    """A trail written years ago must still verify: this may only change with a migration that says how."""
    told = (
        '{"action":"pipeline.create","address":"10.0.0.7","at":"2026-03-01T12:30:15.123456Z","code":"conflict",'
        '"duration_us":12345,"id":1,"outcome":"refused","request_id":"r-1","resource":"shop",'
        '"roles":["admin","auditor"],"status":409,"user":"ada","user_id":"9c3a1f6e-0000-4000-8000-000000000001"}'
    )
    assert entry_hash(GENESIS, 1, ENTRY) == hashlib.sha256(bytes(32) + told.encode()).digest()


def test_every_field_is_covered() -> None:
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(AuditEntry)}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_a_changed_field_shows_at_its_entry(field: str) -> None:
    trail = entries(5)
    trail[2] = dataclasses.replace(trail[2], entry=dataclasses.replace(trail[2].entry, **{field: CHANGES[field]}))

    broken = first_break(START, trail)

    assert broken is not None
    assert broken.id == 3


def test_an_entry_that_is_hashed_anew_shows_at_the_next_one() -> None:
    trail = entries(5)
    forged = dataclasses.replace(trail[2].entry, user="eve")
    trail[2] = ChainedEntry(3, forged, entry_hash(trail[1].hash, 3, forged))

    broken = first_break(START, trail)

    assert broken is not None
    assert broken.id == 4


def test_a_removed_entry_shows_also_when_the_rest_is_renumbered() -> None:
    trail = entries(5)
    missing = first_break(START, trail[:2] + trail[3:])
    renumbered = first_break(
        START, [dataclasses.replace(each, id=n) for n, each in enumerate(trail[:2] + trail[3:], 1)]
    )

    assert missing is not None
    assert "entry 3 is missing" in missing.why
    assert renumbered is not None
    assert renumbered.id == 3


def test_random_chains_hold_and_break_where_they_were_altered(rng: random.Random) -> None:
    for _ in range(50):
        count = rng.randrange(2, 30)
        trail = entries(count)
        split = rng.randrange(count)
        head = Head(trail[split - 1].id, trail[split - 1].hash) if split else START
        assert first_break(START, trail) is None
        assert first_break(head, trail[split:]) is None

        at = rng.randrange(count)
        trail[at] = dataclasses.replace(trail[at], hash=rng.randbytes(32))
        broken = first_break(START, trail)
        assert broken is not None
        assert broken.id == at + 1


def test_the_time_zone_in_which_an_entry_is_read_does_not_matter() -> None:
    elsewhere = dataclasses.replace(ENTRY, at=ENTRY.at.astimezone(timezone(timedelta(hours=5, minutes=30))))

    assert entry_hash(GENESIS, 1, elsewhere) == entry_hash(GENESIS, 1, ENTRY)


def test_texts_of_callers_are_chained_as_they_can_be_stored() -> None:
    odd = dataclasses.replace(ENTRY, user="a\x00b\ud800c\u2028\x1b[31m", resource="\x00" * 2 * MAX_TEXT_CHARS)

    (chained,) = chain(START, [odd])

    assert chained.entry.user == "a\\u0000b\\ud800c\\u2028\\u001b[31m"
    assert chained.entry.resource is not None
    assert len(chained.entry.resource) == MAX_TEXT_CHARS
    assert first_break(START, [chained]) is None
