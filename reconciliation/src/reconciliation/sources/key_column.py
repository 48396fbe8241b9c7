"""The column `_cdc_key` as hashes."""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from cdc_shared.delta.key_hash import KeyHashes, hash_keys

KEY_COLUMN: Final = "_cdc_key"


def hash_key_column(keys: "pa.ChunkedArray[Any]") -> KeyHashes:
    """Return the hashes of the keys, in their order; (0, 0) where there is none."""
    hashes = hash_keys(key or "" for key in keys.to_pylist())
    if keys.null_count:
        hashes[np.asarray(keys.is_null())] = 0
    return hashes
