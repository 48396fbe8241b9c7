"""Checkpoints of the log: without them, opening a table reads every commit since its birth. delta-rs writes them."""

import time
from typing import Final

from deltalake import DeltaTable

from cdc_shared.delta.table_location import TableLocation
from delta_writer.maintenance.budget import Budget

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
