"""Rows of a table as the documents that they hold, and documents put back into rows in other columns."""

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from cdc_shared.delta.actions import Metadata
from cdc_shared.delta.table_metadata import schema_of
from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import Decoded
from delta_writer.maintenance.compactor import arrow_schema

RESCUED: Final = "_cdc_rescued"
_NO_COLUMNS: Final[Mapping[str, Any]] = {}


class DocumentRows:
    """From a table with the metadata `now` to one with the document columns of `target`.

    Attributes:
        schema: of the rows put back: the platform's own columns as they are, then the target's.
    """

    def __init__(self, now: Metadata, target: DocumentSchema) -> None:
        self._source = schema_of(now)
        own = [field for field in arrow_schema(now.schema_string) if field.name.startswith(t.RESERVED_PREFIX)]
        self.schema = pa.schema([*own, *target.storage])

    def documents(self, rows: pa.Table) -> Decoded:
        """Return the documents of rows."""
        rescued: Any = rows.column(RESCUED).combine_chunks()
        return Decoded(self._source, rows.select([field.column for field in self._source.stored]), rescued)

    def with_documents(self, rows: pa.Table, documents: Decoded, own: Mapping[str, Any] = _NO_COLUMNS) -> pa.Table:
        """Return the rows with these documents, of the target's schema, and `own` in place of own columns."""
        columns: dict[str, Any] = {
            name: rows.column(name) for name in rows.column_names if name.startswith(t.RESERVED_PREFIX)
        }
        columns |= {name: documents.table.column(name) for name in documents.table.column_names}
        columns |= {RESCUED: documents.rescued, **own}
        return pa.Table.from_arrays([columns[field.name] for field in self.schema], schema=self.schema)
