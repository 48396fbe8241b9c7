"""The chain of the audit trail: each entry's hash covers the hash before it and everything that the entry says.

    hash = SHA-256(previous hash, 32 bytes, then the entry as JSON)

The JSON is ASCII, an object with its keys sorted, without blanks and without what is null, so that anybody can check
the chain with a few lines of any language. Before the first entry stands `GENESIS`. Whoever alters an entry must
alter all that follow, and the head, which people may have written down elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Final

from control_plane.models.audit import AuditEntry

GENESIS: Final = bytes(32)
MAX_TEXT_CHARS: Final = 500

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ChainedEntry:
    """An entry in its place of the chain."""

    id: int
    """Its place: 1, 2, 3 …"""
    entry: AuditEntry
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The newest place of the chain."""

    entries: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where the chain does not hold."""

    id: int
    why: str


def chain(head: Head, entries: Iterable[AuditEntry]) -> list[ChainedEntry]:
    """Give entries their places behind the head. Their texts come out as they can be stored."""
    chained = []
    place, previous = head.entries, head.hash
    for each in entries:
        place += 1
        entry = _storable(each)
        previous = entry_hash(previous, place, entry)
        chained.append(ChainedEntry(place, entry, previous))
    return chained


def first_break(head: Head, entries: Iterable[ChainedEntry]) -> Break | None:
    """Look for the first of these entries, which follow the head, that does not follow the one before it."""
    place, previous = head.entries, head.hash
    for each in entries:
        place += 1
        if each.id != place:
            return Break(place, f"entry {place} is missing: entry {each.id} comes next")
        if entry_hash(previous, place, each.entry) != each.hash:
            return Break(place, f"entry {place} does not match its hash: it, or the hash before it, was changed")
        previous = each.hash
    return None


def entry_hash(previous: bytes, place: int, entry: AuditEntry) -> bytes:
    """The hash of an entry at this place."""
    said = {
        "id": place,
        "at": entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "user_id": entry.user_id,
        "user": entry.user,
        "roles": list(entry.roles),
        "action": entry.action,
        "resource": entry.resource,
        "outcome": entry.outcome,
        "status": entry.status,
        "code": entry.code,
        "request_id": entry.request_id,
        "address": entry.address,
        "duration_us": duration_us(entry),
    }
    told = {key: value for key, value in said.items() if value is not None}
    return hashlib.sha256(previous + json.dumps(told, sort_keys=True, separators=(",", ":")).encode("ascii")).digest()


def duration_us(entry: AuditEntry) -> int:
    """Whole microseconds: a hash must not hang on how a fraction is written."""
    return round(entry.duration_ms * 1000)


def _storable(entry: AuditEntry) -> AuditEntry:
    """Some texts come from callers: without control characters, which Postgres and terminals mind, and not endless."""
    return replace(
        entry,
        user=entry.user and _text(entry.user),
        resource=entry.resource and _text(entry.resource),
        code=entry.code and _text(entry.code),
        request_id=_text(entry.request_id),
        address=entry.address and _text(entry.address),
    )


def _text(text: str) -> str:
    shown = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text[:MAX_TEXT_CHARS])
    return shown if len(shown) <= MAX_TEXT_CHARS else shown[: MAX_TEXT_CHARS - 1] + "…"
