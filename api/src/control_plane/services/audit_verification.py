"""Checks that the audit trail is what was written: walks the chain and names the first entry that does not fit."""

import time
from collections.abc import Callable
from typing import Final

from anyio import to_thread

from control_plane.database import Connection, Database
from control_plane.models.audit import AuditVerification
from control_plane.models.audit_chain import GENESIS, Break, Head, first_break
from control_plane.problems import Problem
from control_plane.repositories import audit_repo
from control_plane.repositories.audit_repo import AuditFilter

CHUNK_ENTRIES: Final = 5_000
VERIFY_TIME_S: Final = 10.0
"""Then the answer says where to go on: a request must not last for as long as the trail is."""

_ALL: Final = AuditFilter()


async def verify(database: Database, after: int, clock: Callable[[], float] = time.monotonic) -> AuditVerification:
    """Check the entries behind the place `after`, which was checked before; 0: all. Raises `Problem` 422.

    Entries are never changed, so short reads one after another see one trail; no connection is held meanwhile.
    """
    async with database.connection() as connection:
        head, last = await audit_repo.ends(connection)
        at = await _begin(connection, after, head)
    deadline_s = clock() + VERIFY_TIME_S
    broken: Break | None = None
    while at.entries < head.entries and clock() < deadline_s:
        async with database.connection() as connection:
            chunk = await audit_repo.between(connection, _ALL, at.entries, head.entries, CHUNK_ENTRIES)
        if not chunk:
            broken = Break(at.entries + 1, f"entries {at.entries + 1} to {head.entries} are missing")
        else:
            broken = await to_thread.run_sync(first_break, at, chunk)
        if broken:
            break
        at = Head(chunk[-1].id, chunk[-1].hash)
    whole = at.entries == head.entries
    if whole and not broken:
        broken = _broken_end(at, head, last)
    return AuditVerification(
        intact=broken is None,
        after=after,
        checked=max(0, (broken.id - 1 if broken else at.entries) - after),
        entries=head.entries,
        hash=head.hash.hex(),
        first_broken=broken.id if broken else None,
        why=broken.why if broken else None,
        next=None if whole or broken else at.entries,
    )


async def _begin(connection: Connection, after: int, head: Head) -> Head:
    if after == 0:
        return Head(0, GENESIS)
    stored = await audit_repo.hash_at(connection, after) if after <= head.entries else None
    if stored is None:
        raise Problem(422, "invalid_request", "`after` is no entry of the trail; leave it out to check from the start")
    return Head(after, stored)


def _broken_end(at: Head, head: Head, last: int) -> Break | None:
    if at.hash != head.hash:
        return Break(at.entries, f"entry {at.entries} is not the one that was written last: the end was rewritten")
    if last > head.entries:
        return Break(head.entries + 1, f"entry {head.entries + 1} or a later one was added past the chain")
    return None
