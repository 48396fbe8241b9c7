"""What every keeper of secrets offers: the encrypted file and the environment now, Vault later."""

import hmac
from typing import NoReturn, Protocol

from cdc_shared.errors import Fatal


class SecretNotFound(Fatal):
    """No secret of that name. The message names it, where it was looked for, and how to put it there."""


class Secret:
    """A value that does not show itself: only `reveal()` gives it, so that every use can be found by that word."""

    __slots__ = ("_value", "version")

    def __init__(self, value: str, version: int = 1) -> None:
        self._value = value
        self.version = version
        """Grows each time the secret is replaced; providers that keep no versions say 1."""

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret(***, version={self.version})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a secret is nobody's dictionary key

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: pass the reference and resolve it there")


class SecretProvider(Protocol):
    def get(self, name: str) -> Secret:
        """The current version of the secret. Raises `SecretNotFound`; `Transient` when the keeper does not answer."""
        ...
