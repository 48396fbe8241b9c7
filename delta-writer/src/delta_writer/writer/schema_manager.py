"""The schema of one table: what a batch of documents does to it, and when somebody looks whether it is still the same.

Three schemas meet here. The documents' own (`known`) is what they are decoded against: the table's, and what a table
does not keep (fields that were only null, fields that rules leave out). Rules may change it. The result is fitted into
the table's, which grows by the fields that are new; the commit of the batch puts that in force and records it
(`cdc_shared.delta.schema_history`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.delta.table_metadata import HISTORY
from cdc_shared.documents import Decoded, DocumentSchema, FieldPolicies
from cdc_shared.errors import Fatal
from cdc_shared.models.data_quality import EvolutionSpec
from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import DecodedEvents
from delta_writer.transformers.schema_inferrer import fit_documents
from delta_writer.transformers.type_resolver import Promotion, TypeResolver, type_at
from delta_writer.writer.delta_writer import DeltaWriter
from delta_writer.writer.schema_cache import SchemaCache


class FieldConflict(Fatal):
    """A value did not fit a field whose `conflict_resolution_mode` is `fail`. The message does not hold the value."""


class SchemaManager:
    """Of one table, in the pipeline's thread."""

    def __init__(
        self,
        writer: DeltaWriter,
        collection: str,
        evolution: EvolutionSpec,
        cache: SchemaCache,
    ) -> None:
        self.policies = FieldPolicies.of(evolution, collection)
        self._writer = writer
        self._cache = cache
        self._resolver = TypeResolver(self.policies, evolution.promotion)

    def known(self, rules: Rules | None = None) -> DocumentSchema:
        """What the next documents, to which these rules are then applied, are to be decoded against."""
        table = self._writer.schema
        known = self._cache.documents(self._writer.location.url, table, rules)
        return known or (table if rules is None else rules.source_schema(table))

    def fit(self, source: DecodedEvents) -> DecodedEvents:
        """Return the events in the columns that the table is to have, with the first event of each field it lacks.

        Raises:
            FieldConflict: a value does not fit a field that must not have conflicts.
        """
        events = source.events_of_rows()
        elsewhere = frozenset() if self._writer.mode == HISTORY else source.events.history_only
        applied = ~np.isin(events, [*source.rejected, *elsewhere])
        fitted = fit_documents(source.decoded, self._writer.schema, self.policies, applied)
        for row, pointer in fitted.decoded.failures.items():
            if applied[row]:
                raise self._conflict(pointer, self._position(source, events[row]), fitted.decoded)
        shown_by = {pointer: self._position(source, events[row]) for pointer, row in fitted.shown_by.items()}
        return replace(source, decoded=fitted.decoded, shown_by=shown_by)

    def committed(
        self, documents: DocumentSchema, conflicts: Mapping[str, Counter[str]], rules: Rules | None = None
    ) -> None:
        """A batch is in the table: so the schema that its documents came with is known, and what did not fit counts."""
        self._cache.put(self._writer.location.url, self._writer.schema, documents, rules)
        self._resolver.count(self._writer.schema, conflicts)

    def promotions(self) -> list[Promotion]:
        """Return the columns that should be rewritten to a wider type."""
        return self._resolver.promotions(self._writer.schema)

    def look_again(self) -> None:
        """Follow what others have done to a table that nobody here has looked at or written to for a while.

        Raises what `DeltaWriter.reload` does: `ForeignCommit` when the schema was changed by hand.
        """
        if self._cache.must_look(self._writer.location.url):
            self._writer.refresh()
            self._cache.looked_at(self._writer.location.url, self._writer.schema)

    def _position(self, source: DecodedEvents, event: int) -> EventPosition:
        return EventPosition(self._writer.topic.name, source.events.partitions[event], source.events.offsets[event])

    def _conflict(self, pointer: str, event: EventPosition, decoded: Decoded) -> FieldConflict:
        kinds = " or ".join(sorted(decoded.stats.conflicts.get(pointer, ())))
        column = type_at(decoded.schema, pointer)
        return FieldConflict(
            f"field {pointer} of the document in event {event} is {kinds or 'of another type'} and its column in "
            f"{self._writer.location.url} is {'not known' if column is None else column.text}; its "
            "conflict_resolution_mode is fail, so nothing of the batch was written. To go on, set the mode to rescue "
            "(the value goes to _cdc_rescued), string or json, and publish the pipeline again"
        )
