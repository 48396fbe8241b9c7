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

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:  # noqa: ARG002
        """Look at the tables, when it is time again."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY_S
        self._progress.tables(_progress(topic, table) for topic, table in tables.items())

    def close(self) -> None:
        """Nothing is under way."""


def _progress(topic: str, table: Table) -> TableProgress:
    metadata = table.writer.snapshot.metadata
    return TableProgress(
        topic=topic,
        database=table.collection.database,
        collection=table.collection.name,
        table_version=table.writer.version,
        schema_version=int(metadata.configuration.get(SCHEMA_VERSION, 0)) if metadata is not None else 0,
        watermark_ms=table.writer.watermark_ms,
    )
