"""How fast this machine is just now, against a quiet one of the kind that the bars were set on.

Machines are shared: the same work has taken twice as long an hour later. A bar in events a second that is missed on a
slowed machine says nothing of the code; against the pace of a fixed piece of work beside it, it does.
"""

from __future__ import annotations

import json
import time
import zlib
from typing import Final

WORK_S: Final = 1.0
REFERENCE_ROUNDS_PER_S: Final = 3_800.0
"""On the quiet 2-core machine where `MIN_EVENTS_PER_S` and the other bars were set."""

_MEMBER: Final = {"text": "a value of some length", "number": 1.5, "list": list(range(9)), "flag": None}
_DOCUMENT: Final = json.dumps({f"field{i}": _MEMBER for i in range(64)})


def machine_pace() -> float:
    """1.0 on a quiet reference machine, or a faster one; 0.5 when everything takes twice as long. Takes `WORK_S`."""
    rounds = 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < WORK_S:
        zlib.crc32(zlib.compress(json.dumps(json.loads(_DOCUMENT), sort_keys=True).encode(), 1))
        rounds += 1
    return min(1.0, rounds / took / REFERENCE_ROUNDS_PER_S)
