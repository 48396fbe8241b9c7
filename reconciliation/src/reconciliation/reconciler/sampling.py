"""Which keys are also compared through the independent path: the same on both sides, told by the key's hash alone."""

from typing import Final

MIN_SAMPLED: Final = 1_000


def sample_mask(share: float, rows: int) -> int | None:
    """Return the mask of a sample: a key is in it when `hash_lo & mask == 0`. None is no sample.

    The sample has at least `share` of the keys, less than twice that, and about `MIN_SAMPLED` of a collection at least.
    """
    if share <= 0:
        return None
    wanted = min(1.0, max(share, MIN_SAMPLED / max(rows, 1)))
    bits = 0
    while bits < 63 and wanted <= 2.0 ** -(bits + 1):
        bits += 1
    return (1 << bits) - 1
