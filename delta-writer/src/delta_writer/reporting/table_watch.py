"""The chore that looks where a pipeline's tables stand, for its reports."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from cdc_shared.delta.schema_history import SCHEMA_VERSION
from delta_writer.reporting.progress import PipelineProgress, TableProgress
from delta_writer.writer.tables import Table

EVERY_S: Final = 1.0


class TableWatch:
    """A chore of the pipeline's (`upkeep.Chore`): tables may be looked at in the pipeline's thread alone."""

    name = "report"

    def __init__(self, progress: PipelineProgress, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._progress = progress
        self._clock = clock
        self._next = float("-inf")
        self._bytes: dict[str, tuple[int, int]] = {}  # of each topic's table: its version, and the bytes it has then

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:  # noqa: ARG002
        """Look at the tables, when it is time again."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY_S
        self._progress.tables(self._look(topic, table) for topic, table in tables.items())

    def close(self) -> None:
        """Nothing is under way."""

    def _look(self, topic: str, table: Table) -> TableProgress:
        metadata = table.writer.snapshot.metadata
        return TableProgress(
            topic=topic,
            database=table.collection.database,
            collection=table.collection.name,
            table_version=table.writer.version,
            schema_version=int(metadata.configuration.get(SCHEMA_VERSION, 0)) if metadata is not None else 0,
            table_bytes=self._table_bytes(topic, table),
            watermark_ms=table.writer.watermark_ms,
        )

    def _table_bytes(self, topic: str, table: Table) -> int:
        """The sum over all files, made anew only when there may be others: a table may have a great many."""
        version, size = self._bytes.get(topic, (None, 0))
        if version != table.writer.version:
            size = sum(each.size for each in table.writer.snapshot.files.values())
            self._bytes[topic] = table.writer.version, size
        return size
