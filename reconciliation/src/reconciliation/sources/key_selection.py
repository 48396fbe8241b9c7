"""Which keys mode incremental compares: those that changed, and a share of the others, another one each time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cdc_shared.delta.key_hash import KeyHashes, hash_keys

_HASHES: Final = 2**64


@dataclass(frozen=True, eq=False)
class KeySelection:
    """Told by the hash of a key as the table has it, so that both sides choose the same.

    Attributes:
        changed: `hash_hi` of the changed keys, rising. Another key that shares one is chosen too, on both sides.
        first, last: keys whose `hash_hi` lies between them, both included, are chosen too; none when `first > last`.
    """

    changed: npt.NDArray[np.uint64]
    first: int
    last: int

    @classmethod
    def of(cls, changed: Iterable[str], share: float, rotation: int) -> "KeySelection":
        """Choose these `_cdc_key`s, and the `rotation`-th share of all; after `1 / share` runs all had a turn."""
        turns = max(1, round(1 / share)) if share > 0 else 0
        turn = rotation % turns if turns else 0
        first, last = (turn * _HASHES // turns, (turn + 1) * _HASHES // turns - 1) if turns else (1, 0)
        return cls(np.unique(hash_keys(changed)[:, 0]), first, last)

    def chosen(self, hashes: KeyHashes) -> npt.NDArray[np.bool_]:
        """Tell of each key whether it is chosen. Rows without a key, (0, 0), always are."""
        high = hashes[:, 0]
        chosen: npt.NDArray[np.bool_] = (high >= np.uint64(self.first)) & (high <= np.uint64(self.last))
        if len(self.changed):
            at = np.minimum(np.searchsorted(self.changed, high), len(self.changed) - 1)
            chosen |= self.changed[at] == high
        chosen |= (hashes == 0).all(axis=1)
        return chosen
