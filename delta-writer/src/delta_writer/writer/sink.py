"""One of the tables that a topic's events go to, as the pipeline sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.delta.table_metadata import HISTORY
from delta_writer.writer.delta_writer import DeltaWriter
from delta_writer.writer.schema_manager import SchemaManager


@dataclass(slots=True)
class Sink:
    """A writer, and what batches need to know beside it.

    Attributes:
        name: the collection's, or the history's; for metrics and logs.
        schemas: of the table and of the documents that come to it.
        stands: for each partition, where the table stood when the partition was assigned or read again. Reading begins
            at the lower of a collection's tables; each leaves out what it has already.
    """

    name: str
    writer: DeltaWriter
    schemas: SchemaManager
    stands: dict[int, int] = field(default_factory=dict)

    @property
    def is_history(self) -> bool:
        """Whether the table takes every event, not only the last of each key."""
        return self.writer.mode == HISTORY

    def start_offset(self, partition: int, low: int, high: int) -> int:
        """Return where the table wants an assigned partition to be read from, and remember it.

        Kafka holds the offsets from `low` up to `high`. Raises what `DeltaWriter.next_offset` does.
        """
        offset = low if self.writer.version < 0 else self.writer.next_offset(partition, low, high)
        self.stands[partition] = offset
        return offset

    def has(self, ranges: Mapping[int, OffsetRange]) -> bool:
        """Tell whether all of the ranges lie before where the table stood: they are read for another one."""
        stands = self.stands
        return bool(ranges) and all(part.start < stands.get(p, 0) >= part.end for p, part in ranges.items())
