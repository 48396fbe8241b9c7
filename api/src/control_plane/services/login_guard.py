"""Slows those down who guess passwords, and locks them out in the end.

Failures are counted for three subjects: a name from one address (whoever guesses), an address (who tries many names),
and a name from anywhere (many addresses that guess together). Behind a number of free ones, each failure doubles the
time until the next try, up to a cap. So that nobody can lock another out, the cap of a name from anywhere is low, and
it does not hold where the name's user has signed in from of late.

The block is asked before the password is compared, and again after: of many guesses sent at the same moment only the
free ones count, and the answer to the others does not tell whether the password was right.
"""

import hashlib
import ipaddress
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from control_plane.database import Connection
from control_plane.problems import Problem
from control_plane.repositories import login_failure_repo, session_repo, user_repo

FORGET_AFTER: Final = timedelta(hours=1)
IPV6_PREFIX_BITS: Final = 64
"""What one customer of a provider has at least: any address in it is the same guesser."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How a subject is slowed down."""

    free: int
    """Failures that cost nothing."""
    cap_s: int

    def block_s(self, failures: int) -> int:
        """How long after this many failures."""
        doublings = failures - self.free
        return 0 if doublings <= 0 else min(self.cap_s, 2 ** min(doublings, 30))


PAIR: Final = Limit(free=4, cap_s=15 * 60)
ADDRESS: Final = Limit(free=30, cap_s=15 * 60)
NAME: Final = Limit(free=20, cap_s=30)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to sign in: what is counted, most specific first."""

    pair: str
    address: str
    name: str
    network: str
    user: str = field(repr=False)
    """The name, in lower case; never kept."""

    @classmethod
    def of(cls, name: str, address: str | None) -> "Attempt":
        """Names are hashed: people type passwords where names belong."""
        user = name.strip().lower()
        who = hashlib.sha256(user.encode(errors="replace")).hexdigest()
        where = network_of(address)
        return cls(f"pair:{who}:{where}", f"address:{where}", f"user:{who}", where, user)

    @property
    def limits(self) -> dict[str, Limit]:
        return {self.address: ADDRESS, self.pair: PAIR, self.name: NAME}  # in the order in which rows are locked


class LoginGuard:
    """All methods work on the caller's connection."""

    async def admit(self, connection: Connection, attempt: Attempt, now: datetime) -> None:
        """Raises `Problem` 429 while the name or the address is blocked."""
        until = await login_failure_repo.blocked_until(connection, (attempt.pair, attempt.address))
        if until is None or until <= now:
            until = await login_failure_repo.blocked_until(connection, (attempt.name,))
            if until is not None and until > now and await _is_known(connection, attempt):
                return
        if until is not None and until > now:
            wait_s = math.ceil((until - now).total_seconds())
            raise Problem(
                429,
                "too_many_attempts",
                f"too many failed sign-ins: wait {wait_s} s; an admin can reset a forgotten password",
                headers={"Retry-After": str(wait_s)},
            )

    async def admit_in_turn(self, connection: Connection, attempt: Attempt, now: datetime) -> None:
        """As `admit`, once those who try from the same address at this moment have been counted. In a transaction."""
        await login_failure_repo.take_turn(connection, attempt.address)
        await self.admit(connection, attempt, now)

    async def failed(self, connection: Connection, attempt: Attempt, now: datetime) -> None:
        """Count a failure. In a transaction."""
        for subject, limit in attempt.limits.items():
            failures = await login_failure_repo.count(connection, subject, now, FORGET_AFTER)
            if block_s := limit.block_s(failures):
                await login_failure_repo.block(connection, subject, now + timedelta(seconds=block_s))
        await login_failure_repo.clean(connection, now - 2 * FORGET_AFTER)

    async def succeeded(self, connection: Connection, attempt: Attempt) -> None:
        """Forget the failures of the name. Those of the address stay: one good password pays for no guesses."""
        await login_failure_repo.forget(connection, (attempt.pair, attempt.name))


async def _is_known(connection: Connection, attempt: Attempt) -> bool:
    """Whether the user has signed in from the network before, as far back as sessions are kept."""
    user = await user_repo.by_name(connection, attempt.user)
    if user is None:
        return False
    return attempt.network in map(network_of, await session_repo.addresses_of(connection, user.id))


def network_of(address: str | None) -> str:
    """The address, or the network that an IPv6 address is in."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX_BITS), strict=False))
    return str(parsed)
