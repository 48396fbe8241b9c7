"""Key texts of `_id`s as Postgres keeps them: encrypted with the pipeline's data key, because rules may mask the `_id`.

A sealed key opens only as the one of its run and number (AES-GCM's associated data). It is the data key's id, then what
`crypto.encrypt` returns.
"""

from typing import Final

from cdc_shared.security import crypto
from cdc_shared.security.data_key import KEY_ID_BYTES, DataKeys


def seal_key(source_key: str, keys: DataKeys, pipeline: str, run_id: str, number: int) -> bytes:
    """Encrypt the key text of difference `number` of the run."""
    data_key = keys.current(pipeline)
    sealed = crypto.encrypt(data_key.key, source_key.encode(*_UTF8), _associated(pipeline, run_id, number))
    return bytes.fromhex(data_key.id) + sealed


def open_key(sealed: bytes, keys: DataKeys, pipeline: str, run_id: str, number: int) -> str:
    """The inverse of `seal_key`.

    Raises:
        UnknownDataKey: the key that it was sealed with is gone.
        DecryptionFailed: it was changed, or sealed for another place.
    """
    data_key = keys.named(pipeline, sealed[:KEY_ID_BYTES].hex())
    return crypto.decrypt(data_key.key, sealed[KEY_ID_BYTES:], _associated(pipeline, run_id, number)).decode(*_UTF8)


def _associated(pipeline: str, run_id: str, number: int) -> bytes:
    return f"cdc reconciliation key 1\n{pipeline}\n{run_id}\n{number}".encode()


_UTF8: Final = ("utf-8", "surrogatepass")
