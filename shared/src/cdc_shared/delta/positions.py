"""Where a table stands in its change topic, and where its rows lay there, as the table itself says it.

A `txn` for each partition (`cdc:<topic id>:<partition>`) is the next offset to read. A row's `_cdc_partition` counts
from a base, which moves up by the number of partitions when the table starts anew (docs/adr/0011-resync.md).
"""

from typing import Final

from cdc_shared.delta.actions import Metadata

OFFSET_PREFIX: Final = "cdc:"
PARTITION_BASE: Final = "cdc.partitionBase"
"""The property that says what `_cdc_partition` counts from; it moves up when the offsets of the topic begin anew."""


def offset_id(topic_id: str, partition: int) -> str:
    """Return the name of the `txn` that holds the next offset of a topic-partition."""
    return f"{OFFSET_PREFIX}{topic_id}:{partition}"


def partition_base(metadata: Metadata | None) -> int:
    """Return what `_cdc_partition` counts from: a row below it is from before the offsets began anew."""
    return 0 if metadata is None else int(metadata.configuration.get(PARTITION_BASE, "0"))
