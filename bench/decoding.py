"""What it costs to decode documents of which one field mixes types, beside the same documents without.

The field is an integer in the table. In the mixed documents some of its values are a double, a string, an array or an
object: those are rescued, and the rest of each document must stay on the fast path. Measured in this process; needs no
stack.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.cost import measured
from bench.events import EventFactory
from cdc_shared.documents import DocumentSchema, decode

BATCH_DOCUMENTS = 10_000
ROUNDS = 3
"""Both kinds of documents are decoded in turns, so that a busy moment of the machine meets both."""
MIXED_FIELD = "qty"
OTHER_TYPES = ("2.5", '"n/a"', "[1,2]", '{"x": 1}')
ODD_SHARES = (0.01, 0.8)
"""Of the mixed field's values. At 0.8 integers, doubles, strings, arrays and objects are equally many."""


@dataclass
class CostOfMixedTypes:
    """Medians over the rounds, in documents a CPU second."""

    documents: int
    odd_share: float
    plain_per_s: float
    mixed_per_s: float
    walked_rows: int
    """Documents that were decoded wholly on the slow path."""
    rescued_values: int

    @property
    def ratio(self) -> float:
        """How many times dearer mixed documents are."""
        return self.plain_per_s / self.mixed_per_s


def measure_mixed_types(
    documents: int, seed: int, odd_shares: Sequence[float] = ODD_SHARES
) -> Iterator[CostOfMixedTypes]:
    """Measure for each share of odd values in turn."""
    plain = [json.loads(event.value or b"")["after"] for event in EventFactory(seed).inserts(documents)]
    schema = decode(plain[:BATCH_DOCUMENTS], DocumentSchema()).schema
    for share in odd_shares:
        mixed = _mixed(plain, share, seed)
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for texts, kept in zip((plain, mixed), rates, strict=True):
                with measured() as cost:
                    walked, rescued = _decoded(texts, schema)
                kept.append(documents / cost.cpu_s)
        yield CostOfMixedTypes(documents, share, median(rates[0]), median(rates[1]), walked, rescued)


def _mixed(texts: Sequence[str], share: float, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    odd = rng.random(len(texts)) < share
    kinds = rng.integers(0, len(OTHER_TYPES), len(texts)).tolist()
    return [
        _with_value(text, OTHER_TYPES[kind]) if is_odd else text
        for text, kind, is_odd in zip(texts, kinds, odd, strict=True)
    ]


def _with_value(text: str, value: str) -> str:
    start = text.index(f'"{MIXED_FIELD}": ') + len(MIXED_FIELD) + len('"": ')
    return text[:start] + value + text[text.index(",", start) :]


def _decoded(texts: Sequence[str], schema: DocumentSchema) -> tuple[int, int]:
    """Decode in batches; the rows that were walked, and the values rescued."""
    walked = rescued = 0
    for start in range(0, len(texts), BATCH_DOCUMENTS):
        decoded = decode(texts[start : start + BATCH_DOCUMENTS], schema)
        if decoded.schema != schema or decoded.invalid:
            raise AssertionError("benchmark documents must fit the schema but for the mixed field's values")
        walked += decoded.stats.walked_rows
        rescued += decoded.stats.rescued_values
    return walked, rescued
