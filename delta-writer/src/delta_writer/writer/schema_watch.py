"""Looking at quiet tables now and then, so that what others do to them is not found only when the next event comes."""

from collections.abc import Collection, Mapping

from delta_writer.writer.tables import Table


class SchemaWatch:
    """An `upkeep.Chore`: ends the pipeline (`ForeignCommit`) when a table was altered by hand."""

    name = "schema watch"

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:  # noqa: ARG002
        """See `upkeep.Chore`. One request a table every five minutes."""
        for table in tables.values():
            for sink in table.sinks:
                sink.schemas.look_again()

    def close(self) -> None:
        """See `upkeep.Chore`."""
