"""Checkpoints of the log: without them, opening a table reads every commit since its birth. delta-rs writes them."""

import time
from typing import Final

from deltalake import DeltaTable

from delta_writer.maintenance.budget import Budget
from delta_writer.writer.delta_writer import TableLocation

COMMITS_A_CHECKPOINT: Final = 100


def write_checkpoint(location: TableLocation, version: int, budget: Budget) -> None:
    """Write the checkpoint of a version. One that fails costs nothing but its time: the log is whole without it.

    Raises:
        DeltaError, OSError: delta-rs could not.
        Stopped: it is written, and the budget's stop event was set.
    """
    started = time.monotonic()
    DeltaTable(location.url, version, storage_options=dict(location.storage_options)).create_checkpoint()
    budget.used(elsewhere_s=time.monotonic() - started)
