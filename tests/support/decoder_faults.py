"""Faults of the decoder, planted: dates in a wrong time zone, 64-bit integers cut to 32 bits.

The reader of raw BSON gets the same fault as the writer's decoder, so that the rows of both sides are wrong alike.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import fast_decoder
from cdc_shared.documents import types as t

Fault = Callable[[Any], Any]
"""Values of a column → what they are read as."""

Put = Callable[[Any, Any, Any], None]
"""As `monkeypatch.setitem`."""

HOUR_US: Final = 3_600_000_000


def _an_hour_late(values: Any) -> Any:
    return pc.add(values.view(pa.int64()), HOUR_US).view(pa.timestamp("us", "UTC"))


def _cut_to_32_bits(values: Any) -> Any:
    return pa.array(values.to_numpy(zero_copy_only=False).astype(np.int32).astype(np.int64))


FAULTS: Final[dict[t.Kind, Fault]] = {t.Kind.DATE: _an_hour_late, t.Kind.LONG: _cut_to_32_bits}


def plant_in_writers_decoder(kind: t.Kind, put: Put = dict.__setitem__) -> None:
    """Values of this kind are decoded wrongly in this process."""
    right: Any = fast_decoder._SCALARS[kind]
    put(fast_decoder._SCALARS, kind, lambda array: FAULTS[kind](right(array)))
    fast_decoder._unwraps.cache_clear()  # it keeps the functions that it was made with


def plant_in_raw_reader(kind: t.Kind, put: Put = dict.__setitem__) -> None:
    """Reconciliation's reader of raw BSON reads values of this kind wrongly in this process."""
    from reconciliation.reconciler import bson_columns  # a writer has none

    right: Any = bson_columns._SCALARS[kind]

    def faulty(block: Any, cells: Any) -> Any:
        values, refused = right(block, cells)
        return FAULTS[kind](values), refused

    put(bson_columns._SCALARS, kind, faulty)


def faulty_from_the_start(directory: Path, kind: t.Kind) -> dict[str, str]:
    """The environment of a Python process whose writer's decoder has the fault; it leaves a file in `directory`."""
    (directory / "sitecustomize.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        "from cdc_shared.documents.types import Kind\nfrom decoder_faults import plant_in_writers_decoder\n"
        f"plant_in_writers_decoder(Kind({kind.value!r}))\n"
    )
    return {"PYTHONPATH": str(directory)}
