"""Passwords: how they are kept (argon2id), compared, and what makes one good enough."""

import re
import secrets
import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from passlib.context import CryptContext

from control_plane.problems import Problem

MIN_CHARS: Final = 12
MAX_BYTES: Final = 1024
MIN_DIFFERENT_CHARS: Final = 6
GENERATED_BYTES: Final = 18
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
"""OWASP's setting for argon2id with 19 MiB; about 27 ms here."""
HASHES_AT_ONCE: Final = 2
"""Bounds what sign-ins take of the processor and of memory."""

_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_COMMON: Final = re.compile(r"(pass(word|wort|phrase)|qwert[yz]|asdf|letmein|welcome|change_?me|admin|secret|abc)+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password is the right one, and the hash to keep from now on where today's settings are stronger."""

    right: bool
    new_hash: str | None = None


class Passwords:
    """Hashes in threads, a few at a time: the event loop never waits for one."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__rounds=passes,
            argon2__parallelism=1,
        )
        self._limiter = anyio.CapacityLimiter(HASHES_AT_ONCE)
        self._nobodys: str = self._context.hash(generate_password())

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        return await anyio.to_thread.run_sync(partial(self._hash, _normal(password)), limiter=self._limiter)

    async def verify(self, password: str, kept: str | None) -> Verdict:
        """Compare with what is kept; None, for a user that does not exist, takes as long and is wrong."""
        plain = _normal(password)
        if len(plain.encode()) > MAX_BYTES:
            plain = ""  # nosec B105 # takes as long, and is nobody's
        verdict = await anyio.to_thread.run_sync(
            partial(self._verify, plain, kept or self._nobodys), limiter=self._limiter
        )
        return verdict if kept is not None else Verdict(right=False)

    def _hash(self, plain: str) -> str:
        return str(self._context.hash(plain))

    def _verify(self, plain: str, kept: str) -> Verdict:
        right, new_hash = self._context.verify_and_update(plain, kept)
        return Verdict(bool(right), new_hash)


def generate_password() -> str:
    """A password with 144 random bits."""
    return secrets.token_urlsafe(GENERATED_BYTES)


def require_good(password: str, user: str) -> None:
    """Raises `Problem` 422 `weak_password` that says what is missing."""
    if reason := weakness(password, user):
        raise Problem(422, "weak_password", f"choose another password: {reason}")


def weakness(password: str, user: str) -> str | None:
    """Why a password of this user is not good enough; None when it is."""
    plain = _normal(password).lower()
    letters = re.sub(r"[\W\d_]+", "", plain)
    if len(password) < MIN_CHARS:
        return f"it needs {MIN_CHARS} characters at least"
    if len(plain.encode()) > MAX_BYTES:
        return f"it may have {MAX_BYTES} bytes at most"
    if _NO_TEXT.search(password):
        return "it holds a character that is no text"
    if len(set(plain)) < MIN_DIFFERENT_CHARS:
        return f"it needs {MIN_DIFFERENT_CHARS} different characters at least"
    if user.lower() in plain and len(user) > 2:
        return "it holds the user's name"
    if plain in "0123456789" * 30 or _COMMON.fullmatch(letters):
        return "it is among the first that are guessed"
    return None


def _normal(password: str) -> str:
    """One form for what looks the same, whichever keyboard it came from."""
    return unicodedata.normalize("NFKC", password).encode(errors="replace").decode()
