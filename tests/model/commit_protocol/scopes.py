"""What the checker looks at: small worlds, each with something that the others leave out."""

from __future__ import annotations

from typing import Final

from commit_protocol.model import Model
from commit_protocol.protections import Protection, without
from commit_protocol.stream import (
    CHANGES,
    ONE_CHANGE,
    ONE_EACH,
    ONE_PARTITION,
    SHARED_FILE,
    SHORT_SNAPSHOT,
    THREE_KEYS,
    TWO_PARTITIONS,
    WITH_SNAPSHOT,
)

SCOPES: Final = {
    "three batches, two partitions": Model(TWO_PARTITIONS),
    "puts that land late": Model(ONE_EACH, delays=1),
    "log clean-up under sleeping writers": Model(ONE_PARTITION, forgets=True, delays=1),
    "looks cut short, a rewrite": Model(ONE_CHANGE, rewrites=1, cuts=True),
    "two rewrites": Model(ONE_CHANGE, rewrites=2),
    "a rewrite, puts that land late": Model(ONE_CHANGE, rewrites=1, delays=1),
    "a rewrite and a restore, one writer": Model(ONE_CHANGE, rewrites=1, restores=True, delays=1, writers=1),
    "a sweep, puts that land late": Model(WITH_SNAPSHOT, sweeps=True, delays=1),
    "a sweep and a rewrite": Model(SHORT_SNAPSHOT, sweeps=True, rewrites=1),
}
"""In every one: writers, two unless it says one, that may both believe that a partition is theirs, are killed and start
again anywhere, lose and get partitions with a batch in hand, and whose puts are refused, are lost, or land unheard."""

LARGE: Final = {
    "three batches, two partitions, puts that land late": Model(TWO_PARTITIONS, delays=1),
    "two rewrites, two changes": Model(CHANGES, rewrites=2),
    "a rewrite and a restore": Model(ONE_CHANGE, rewrites=1, restores=True),
    "a sweep and a rewrite, the ghost inserted anew": Model(WITH_SNAPSHOT, sweeps=True, rewrites=1),
}
"""Too many states for every run: `PYTHONPATH=tests/model python -m commit_protocol --large`."""

MUTATIONS: Final = {
    Protection.FENCE: ("I2", Model(TWO_PARTITIONS, on=without(Protection.FENCE))),
    Protection.PUT_IF_ABSENT: ("I4", Model(TWO_PARTITIONS, on=without(Protection.PUT_IF_ABSENT))),
    Protection.OWN_COMMITS: ("I3", Model(TWO_PARTITIONS, on=without(Protection.OWN_COMMITS))),
    Protection.CATCH_UP: ("progress", Model(ONE_PARTITION, on=without(Protection.CATCH_UP))),
    Protection.PLAN_ANEW: ("I5", Model(SHARED_FILE, on=without(Protection.PLAN_ANEW))),
    Protection.LOOK_WHEN_OLD: ("I4", Model(ONE_PARTITION, forgets=True, on=without(Protection.LOOK_WHEN_OLD))),
    Protection.AGE_OF_WHAT_WAS_READ: (
        "I4",
        Model(ONE_PARTITION, forgets=True, on=without(Protection.AGE_OF_WHAT_WAS_READ)),
    ),
    Protection.LOOK_AGAIN: ("I5", Model(ONE_CHANGE, rewrites=1, cuts=True, on=without(Protection.LOOK_AGAIN))),
    Protection.INDEX_FOLLOWS: ("I5", Model(ONE_CHANGE, rewrites=1, cuts=True, on=without(Protection.INDEX_FOLLOWS))),
    Protection.SCHEMA_CHECK: ("I14", Model(TWO_PARTITIONS, on=without(Protection.SCHEMA_CHECK))),
    Protection.SEEK_BACK: ("I1", Model(THREE_KEYS, on=without(Protection.SEEK_BACK))),
    Protection.SKIP_READ: ("I1", Model(TWO_PARTITIONS, on=without(Protection.SKIP_READ))),
    Protection.CARRY_OVER: ("I5", Model(CHANGES, rewrites=1, on=without(Protection.CARRY_OVER))),
    Protection.MOVED_CHECK: (
        "I9",
        Model(SHORT_SNAPSHOT, sweeps=True, rewrites=1, on=without(Protection.MOVED_CHECK)),
    ),
    Protection.RESTORE_CHECK: (
        "I8",
        Model(ONE_CHANGE, rewrites=1, restores=True, on=without(Protection.RESTORE_CHECK)),
    ),
    Protection.SWEEP_ROWS: ("I9", Model(WITH_SNAPSHOT, sweeps=True, on=without(Protection.SWEEP_ROWS))),
    Protection.SWEEP_AFTER_SNAPSHOT: (
        "I9",
        Model(WITH_SNAPSHOT, sweeps=True, on=without(Protection.SWEEP_AFTER_SNAPSHOT)),
    ),
}
"""Which invariant falls first when a protection is taken away."""
