"""The unique rule: no two documents of a batch have one value."""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import bson_value
from cdc_shared.rules.batch import Batch, pointer_pattern
from cdc_shared.rules.comparison import identity
from cdc_shared.rules.field_values import Mask, Reached, mask_of, values_at
from cdc_shared.rules.paths import Tokens

_SAME_WHEN_EQUAL: Final = (t.STRING, t.TEXT, t.LONG, t.OBJECT_ID, t.UUID, t.BOOLEAN, t.DATE)
"""Types whose values are the same exactly when Arrow takes their storage values for equal."""


@dataclass(frozen=True)
class NoValueTwice:
    """The first document to come keeps a value, unless an earlier rule has rejected it. Events of one document, which
    have one key, may repeat it.
    """

    tokens: Tokens
    failure: str = "has a value that another document of the batch has"

    def passes(self, document: Any) -> bool:  # noqa: ARG002 (alone in its batch)
        return True

    def failing(self, batch: Batch) -> Mask:
        """The open rows that have another document's value."""
        failing = batch.none()
        holders: dict[Hashable, str] = {}
        for row, values in self._repeated_values(batch).items():
            key = batch.keys[row]
            if any(holders.get(value, key) != key for value in values):
                failing[row] = True
            else:
                holders |= dict.fromkeys(values, key)
        return failing

    def _repeated_values(self, batch: Batch) -> Mapping[int, list[Hashable]]:
        """Open rows, ascending, and the identities of their values; those that come once may be left out."""
        reached = batch.reach(self.tokens)
        unsure = batch.touched(pointer_pattern(self.tokens))
        unsure[reached.opaque] = True
        values: dict[int, list[Hashable]] = defaultdict(list)
        alone = np.flatnonzero(unsure & batch.is_open)
        for row in alone.tolist():
            reached_values = values_at(batch.document(row), self.tokens)
            values[row] = [identity(value) for value in reached_values if value is not None]
        of_interest = reached.present if len(alone) else _repeated(reached)
        places = np.flatnonzero(of_interest)
        rows = reached.starts_of(places)
        is_wanted = (batch.is_open & ~unsure)[rows]
        stored = reached.values.take(places[is_wanted]).to_pylist()
        for row, value in zip(rows[is_wanted].tolist(), stored, strict=True):
            values[row].append(identity(bson_value(value, reached.type)))
        return dict(sorted(values.items()))


def _repeated(reached: Reached) -> Mask:
    """The places whose value may be at another place too."""
    if reached.type not in _SAME_WHEN_EQUAL:
        return reached.present
    count = len(reached.values) - reached.values.null_count
    if pc.count_distinct(reached.values).as_py() == count:
        return reached.present & False
    counts = pc.value_counts(reached.values)
    several: t.ArrowArray = pc.greater(counts.field("counts"), pa.scalar(1, pa.int64()))
    repeated = counts.field("values").filter(several).drop_null()
    return reached.present & mask_of(pc.is_in(reached.values, value_set=repeated))
