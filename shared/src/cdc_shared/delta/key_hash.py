"""128-bit hashes of `_cdc_key` texts: how the key index names a row.

Rows are matched by hash alone. With 128 bits, a billion keys have one chance in about 10**20 of a collision; a 64-bit
hash did collide in a trial and corrupted rows.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

KeyHashes: TypeAlias = npt.NDArray[np.uint64]
"""Shape (n, 2): high and low 64 bits of each key's hash."""

_DIGEST: Final = np.dtype(">u8")


def hash_keys(keys: Iterable[str]) -> KeyHashes:
    """Return the hashes of the keys, in their order."""
    digests = b"".join(xxh3_128_digest(key.encode()) for key in keys)
    return np.frombuffer(digests, _DIGEST).astype(np.uint64).reshape(-1, 2)


def last_of_each_key(hashes: KeyHashes) -> npt.NDArray[np.int64]:
    """Return the position of the last occurrence of each key, ascending: the last event of a batch wins."""
    if len(hashes) < 2:
        return np.arange(len(hashes))
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal keys stay in event order
    ordered = hashes[order]
    is_last = np.append((ordered[1:] != ordered[:-1]).any(axis=1), True)
    return np.sort(order[is_last])
