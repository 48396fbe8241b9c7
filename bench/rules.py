"""What transformation rules and masks cost beside decoding. Measured in this process; needs no stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from bench.cost import measured
from bench.events import EventFactory
from cdc_shared.documents import DocumentSchema, decode
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules

BATCH_DOCUMENTS = 50_000
ROUNDS = 3
"""Decoding and transforming take turns, so that a busy moment of the machine meets both."""
RULES = QualitySpec.model_validate(
    {
        "version": 1,
        "transformation": [
            {"rule": "rename", "path": "/customer", "to": "client"},
            {"rule": "hash", "path": "/email", "key": "env:KEY"},
            {"rule": "partial", "path": "/address/zip", "keep_last": 2},
            {"rule": "drop", "path": "/note"},
            {"rule": "convert", "path": "/views", "to": "string"},
        ],
    }
)


@dataclass
class CostOfRules:
    """Medians over the rounds, in documents a CPU second."""

    documents: int
    decoded_per_s: float
    transformed_per_s: float
    changed_values: int
    """Masked and converted in one round."""

    @property
    def share(self) -> float:
        """CPU seconds of the rules for each of decoding."""
        return self.decoded_per_s / self.transformed_per_s


def measure_rules(documents: int, seed: int) -> CostOfRules:
    """Five rules, two of them masks, for every document."""
    texts = [json.loads(event.value or b"")["after"] for event in EventFactory(seed).inserts(documents)]
    rules = Rules.compile(RULES, "orders", lambda _: b"a key for this benchmark")
    schema = decode(texts[:BATCH_DOCUMENTS], DocumentSchema()).schema
    decoding, transforming, changed = [], [], 0
    for _ in range(ROUNDS):
        decoding_s = transforming_s = 0.0
        changed = 0
        for batch in _batches(texts):
            with measured() as cost:
                decoded = decode(batch, schema)
            decoding_s += cost.cpu_s
            with measured() as cost:
                transformed = rules.transform(decoded, batch)
            transforming_s += cost.cpu_s
            changed += sum(transformed.counts.values())
        decoding.append(documents / decoding_s)
        transforming.append(documents / transforming_s)
    return CostOfRules(documents, median(decoding), median(transforming), changed)


def _batches(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH_DOCUMENTS):
        yield texts[start : start + BATCH_DOCUMENTS]
