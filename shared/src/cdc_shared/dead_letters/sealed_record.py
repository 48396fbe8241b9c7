"""The rejected record as a dead letter holds it: key and value together, encrypted with the pipeline's data key.

What was sealed for one place opens for no other: pipeline, topic, partition and offset are AES-GCM's associated data.
The plaintext is one byte (1: there is a key, 2: there is a value, 3: both), the key's length in 4 bytes (big endian),
the key, the value.
"""

import struct
from typing import Final, NamedTuple

from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.security import crypto
from cdc_shared.security.data_key import DataKey, DataKeys

_HEAD: Final = struct.Struct(">BI")
_HAS_KEY: Final = 1
_HAS_VALUE: Final = 2


class RawRecord(NamedTuple):
    """Key and value of a Kafka record, as they were consumed."""

    key: bytes | None
    value: bytes | None

    @property
    def size_bytes(self) -> int:
        """Of both."""
        return len(self.key or b"") + len(self.value or b"")

    def __repr__(self) -> str:
        return f"RawRecord({self.size_bytes} bytes)"


def seal(record: RawRecord, data_key: DataKey, pipeline: str, place: Place) -> bytes:
    """Encrypt the record for this place."""
    has = _HAS_KEY * (record.key is not None) + _HAS_VALUE * (record.value is not None)
    key = record.key or b""
    plain = b"".join((_HEAD.pack(has, len(key)), key, record.value or b""))
    return crypto.encrypt(data_key.key, plain, _associated(pipeline, place))


def unseal(sealed: bytes, letter: Letter, keys: DataKeys) -> RawRecord:
    """The record that the letter is about.

    Raises:
        UnknownDataKey: the key that it was sealed with is gone.
        DecryptionFailed: it was changed, or sealed for another place.
    """
    data_key = keys.named(letter.pipeline, letter.key_id)
    try:
        plain = crypto.decrypt(data_key.key, sealed, _associated(letter.pipeline, letter.place))
    except crypto.DecryptionFailed:
        raise crypto.DecryptionFailed(
            "its content was changed, or belongs to another letter; it can only be discarded"
        ) from None
    has, key_length = _HEAD.unpack_from(plain)
    body = plain[_HEAD.size :]
    return RawRecord(
        body[:key_length] if has & _HAS_KEY else None,
        body[key_length:] if has & _HAS_VALUE else None,
    )


def _associated(pipeline: str, place: Place) -> bytes:
    return f"cdc dead letter 1\n{pipeline}\n{place.topic}\n{place.partition}\n{place.offset}".encode()
