"""Checkpoints of the log, off the hot path: without them, opening a table reads every commit since its birth."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cdc_shared.logging.structured_logger import get_logger
from delta_writer.writer.delta_writer import TableLocation

COMMITS_A_CHECKPOINT: Final = 100

log = get_logger(__name__)


class Checkpointer:
    """Writes a checkpoint every `COMMITS_A_CHECKPOINT` versions of a table, with delta-rs, in one background thread.

    A checkpoint that fails costs nothing but its time: the log is whole without it, and the next one is tried.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def after_commit(self, location: TableLocation, version: int) -> None:
        """Start a checkpoint when the version calls for one and none of the table is under way. Does not block."""
        if version == 0 or version % COMMITS_A_CHECKPOINT:
            return
        with self._lock:
            if location.url in self._under_way:
                return
            self._under_way.add(location.url)
        self._executor.submit(self._checkpoint, location, version)

    def close(self) -> None:
        """Wait for the checkpoint under way; drop those that have not begun."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _checkpoint(self, location: TableLocation, version: int) -> None:
        try:
            DeltaTable(location.url, version, storage_options=dict(location.storage_options)).create_checkpoint()
            log.info("checkpoint written", table=location.url, version=version)
        except (DeltaError, OSError, ValueError) as error:
            log.warning("checkpoint failed; the next one is tried", table=location.url, reason=str(error))
        finally:
            with self._lock:
                self._under_way.discard(location.url)
