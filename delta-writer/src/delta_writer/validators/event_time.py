"""Tells when the source's time goes back within a partition: what came in order by offset is not in order by time.

Rows do not mind, because offsets order events. But something is odd: a source whose clock was set back, a fail-over to
a member with another clock, a connector that sends an old stretch of the oplog again. Snapshot reads and re-reads carry
the time of the reading and are left out, and so are events that are sent again for a history alone.
"""

from typing import Final

import numpy as np

from cdc_shared.documents import REREAD
from delta_writer.transformers.change_batch import SNAPSHOT_READ, ChangeEvents

MAX_SETBACK_MS: Final = 60_000
"""Clocks of a replica set's members differ by less."""
_READ: Final = frozenset({SNAPSHOT_READ, REREAD})


class EventTimes:
    """Remembers the newest time of each partition of one topic."""

    def __init__(self) -> None:
        self._newest_ms: dict[int, int] = {}

    def setbacks(self, events: ChangeEvents) -> dict[int, int]:
        """Take in a batch. Return, for each partition in which the time went back too far, by how many ms at most."""
        if not len(events):
            return {}
        ops = events.ops
        times, partitions = np.asarray(events.source_ts_ms, np.int64), np.asarray(events.partitions, np.int32)
        if _READ & set(ops) or events.history_only:
            streamed = np.array(
                [op not in _READ and i not in events.history_only for i, op in enumerate(ops)], np.bool_
            )
            times, partitions = times[streamed], partitions[streamed]
        found = {}
        for partition in np.unique(partitions).tolist():
            of_partition = times[partitions == partition]
            newest = np.maximum.accumulate(np.append(self._newest_ms.get(partition, 0), of_partition))
            self._newest_ms[partition] = int(newest[-1])
            setback = int((newest[:-1] - of_partition).max())
            if setback > MAX_SETBACK_MS:
                found[partition] = setback
        return found
