"""Keys for what the platform keeps of people's data outside their tables: one for each pipeline, none of them stored.

They are derived (HKDF-SHA256) from master keys, which `CDC_DATA_KEY` refers to. Its secret holds one or more of them,
32 bytes in base64 each, with white space or commas between: the first encrypts, all decrypt. To rotate, put a new one
in front; an old one may go once nothing that names it is left (docs/adr/0018-dead-letters.md).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from cdc_shared.errors import Fatal
from cdc_shared.security import crypto
from cdc_shared.security.references import REFERENCE_PATTERN, resolve_reference
from cdc_shared.security.secret_provider import SecretProvider
from cdc_shared.settings import EnvironmentSettings

KEY_ID_BYTES: Final = 8

_SEPARATORS: Final = re.compile(r"[\s,]+")
# What is derived for one purpose is unrelated to what is derived for another.
_PIPELINE_INFO: Final = b"cdc data key of pipeline: "
_ID_INFO: Final = b"cdc data key id"


class UnknownDataKey(Fatal):
    """It was encrypted under a master key that `CDC_DATA_KEY` no longer holds."""


class DataKeySettings(EnvironmentSettings):
    """Where the master keys are."""

    reference: str = Field(
        validation_alias="CDC_DATA_KEY",
        pattern=REFERENCE_PATTERN,
        description="a reference, secret:<name> or env:<VARIABLE>, to the key that dead letters are encrypted with: "
        "32 random bytes in base64 (openssl rand -base64 32)",
    )


class DataKey(NamedTuple):
    """One pipeline's key. `id` tells which master key it is derived from, and nothing about it."""

    id: str
    key: bytes

    def __repr__(self) -> str:
        return f"DataKey(id={self.id!r})"


class DataKeys:
    """The keys of every pipeline under the master keys of one deployment."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        """`masters`: the one that encrypts first."""
        self._masters = {_derived(master, _ID_INFO, KEY_ID_BYTES).hex(): master for master in masters}
        self._current = next(iter(self._masters))

    @classmethod
    def resolve(cls, reference: str, providers: Mapping[str, SecretProvider]) -> "DataKeys":
        """The keys that `reference` names. Raises what `resolve_reference` does, and `InvalidKey` without the text."""
        text = resolve_reference(reference, providers).reveal()
        where = f"{reference} (CDC_DATA_KEY)"
        return cls([crypto.decode_key(each, where) for each in _SEPARATORS.split(text.strip())])

    def current(self, pipeline: str) -> DataKey:
        """The key that this pipeline's data is encrypted with now."""
        return DataKey(self._current, _derived(self._masters[self._current], _PIPELINE_INFO + pipeline.encode()))

    def named(self, pipeline: str, key_id: str) -> DataKey:
        """The key of that id, current or not. Raises `UnknownDataKey`."""
        master = self._masters.get(key_id)
        if master is None:
            raise UnknownDataKey(
                f"it was encrypted under key {key_id}, which CDC_DATA_KEY does not hold: put that key back, behind the "
                "current one"
            )
        return DataKey(key_id, _derived(master, _PIPELINE_INFO + pipeline.encode()))


def _derived(master: bytes, info: bytes, length: int = crypto.KEY_BYTES) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(master)
