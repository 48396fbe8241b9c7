"""Key texts open only where they were sealed for, and with the key that they were sealed with."""

import pytest

from cdc_shared.security.crypto import DecryptionFailed
from cdc_shared.security.data_key import DataKeys, UnknownDataKey
from reconciliation.reconciler.sealed_keys import open_key, seal_key

pytestmark = pytest.mark.unit

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
KEY = '{"id":"Ada \ud800 Lovelace"}'


def test_what_was_sealed_opens_in_its_place_alone() -> None:
    keys = DataKeys([OLD])
    sealed = seal_key(KEY, keys, "shop", "run-1", 7)
    assert b"Ada" not in sealed
    assert open_key(sealed, keys, "shop", "run-1", 7) == KEY
    assert seal_key(KEY, keys, "shop", "run-1", 7) != sealed
    for place in (("other", "run-1", 7), ("shop", "run-2", 7), ("shop", "run-1", 8)):
        with pytest.raises(DecryptionFailed):
            open_key(sealed, keys, *place)
    with pytest.raises(DecryptionFailed):
        open_key(sealed[:-1] + bytes([sealed[-1] ^ 1]), keys, "shop", "run-1", 7)


def test_keys_can_be_rotated() -> None:
    sealed = seal_key(KEY, DataKeys([OLD]), "shop", "run-1", 7)
    assert open_key(sealed, DataKeys([NEW, OLD]), "shop", "run-1", 7) == KEY
    with pytest.raises(UnknownDataKey, match="put that key back"):
        open_key(sealed, DataKeys([NEW]), "shop", "run-1", 7)
