"""What a table itself says of snapshots: which were swept, and whether one is still needed.

When Kafka no longer has what comes next and reading goes on without it, the stream has a gap: until a snapshot begun
later is swept, the table may lack changes and hold what is gone. The table's partition base has moved up then
(docs/adr/0011-resync.md), and no sweep is recorded above it yet.
"""

from collections.abc import Callable, Mapping

from cdc_shared.delta.offsets import ChangeTopic, app_id, swept_id
from cdc_shared.delta.positions import partition_base
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_metadata import RESYNC_SINCE
from cdc_shared.snapshots.topic_positions import AttemptBounds


def has_gap(table: Snapshot, topic: ChangeTopic) -> bool:
    """Tell whether a snapshot is still needed to make the table whole."""
    base = partition_base(table.metadata)
    return base > 0 and any(table.txns.get(swept_id(topic, base + p), -1) < 0 for p in range(topic.partitions))


def gap_before(table: Snapshot, topic: ChangeTopic, notification_topic_id: str) -> int | None:
    """Return the offset of the notification topic from which on a snapshot makes the table whole; None without a gap.

    When the notification topic is another one than at the time, everything in it came later.
    """
    if table.metadata is None or not has_gap(table, topic):
        return None
    topic_id, _, offset = table.metadata.configuration.get(RESYNC_SINCE, "").rpartition(":")
    return int(offset) if topic_id == notification_topic_id else 0


def is_swept(table: Snapshot, topic: ChangeTopic, bounds: AttemptBounds) -> bool:
    """Tell whether the table has no row from before an attempt: it was swept, or never had one."""
    base = partition_base(table.metadata)
    before = bounds.before(base)
    if base == 0 and not any(before.values()):
        return True
    return all(table.txns.get(swept_id(topic, partition), -1) >= offset for partition, offset in before.items())


def has_arrived(
    table: Snapshot,
    topic: ChangeTopic,
    ends: Mapping[int, int],
    has_change: Callable[[ChangeTopic, int, int, int], bool],
) -> bool:
    """Tell whether the table holds every change before these offsets of the partitions.

    `has_change(topic, partition, start, end)` is `TopicPositions.has_change`: nothing but markers may end a partition,
    and the table's offset would say so only a minute later.
    """
    stands = {p: table.txns.get(app_id(topic, p), 0) for p in ends}
    return all(stands[p] >= end or not has_change(topic, p, stands[p], end) for p, end in ends.items())
