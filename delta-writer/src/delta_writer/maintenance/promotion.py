"""Promotion: a column that conflicts again and again gets a wider type, and what was rescued of it moves into it.

What is to be promoted stands in the table's property `cdc.promotions`, so that it is begun again after a restart, and
done by the writer that maintains the table, whichever has seen the conflicts. The commit of the new columns takes it
out. All fields that wait are rewritten together; one whose type has become another meanwhile no longer counts.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import pyarrow as pa

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.delta.schema_history import SchemaCause, SchemaOperation
from cdc_shared.delta.stats import INDEXED_COLUMNS
from cdc_shared.delta.table_metadata import schema_of, with_schema
from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t
from cdc_shared.documents.fitting import fit
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.pointers import pointer_names
from cdc_shared.metrics.prometheus_metrics import MaintenanceTask
from delta_writer.maintenance.document_rows import DocumentRows
from delta_writer.transformers.type_resolver import Promotion, type_at
from delta_writer.writer.file_changes import Overtaken

PROMOTIONS: Final = "cdc.promotions"
"""The table property that names the columns to promote."""
_PARAMETER: Final = re.compile(r"(decimal|number):([0-9]{1,2})")


class WaitingPromotion(msgspec.Struct, frozen=True):
    """A field, by its JSON Pointer, its type and the one that it is to have (`cdc.type` texts)."""

    field: str
    was: str
    to: str

    @classmethod
    def of(cls, promotion: Promotion) -> "WaitingPromotion":
        """Return a promotion as the property has it."""
        return cls(promotion.pointer, promotion.from_type.text, promotion.to_type.text)

    @property
    def type(self) -> t.FieldType:
        """The type that it is to have. Raises `ValueError` for one that nothing is promoted to."""
        match = _PARAMETER.fullmatch(self.to)
        if match is not None:
            return t.Decimal(int(match[2])) if match[1] == "decimal" else t.Number(int(match[2]))
        return t.Scalar(t.Kind(self.to))

    def applies_to(self, schema: DocumentSchema) -> bool:
        """Tell whether the field has the type that it is to be promoted from."""
        type_ = type_at(schema, self.field)
        return type_ is not None and type_.text == self.was


_LIST: Final = msgspec.json.Decoder(list[WaitingPromotion])


def waiting_promotions(metadata: Metadata) -> list[WaitingPromotion]:
    """Return what a table's property asks for and its columns allow."""
    waiting = _LIST.decode(metadata.configuration.get(PROMOTIONS, "[]"))
    return [each for each in waiting if each.applies_to(schema_of(metadata))]


def with_promotions(metadata: Metadata, further: Iterable[WaitingPromotion]) -> dict[str, str]:
    """Return the property that asks for what already waits and for `further`; the last one said of a field counts."""
    waiting = {each.field: each for each in (*waiting_promotions(metadata), *further)}
    return {PROMOTIONS: msgspec.json.encode(list(waiting.values())).decode()}


def exact(promotion: WaitingPromotion, schema: DocumentSchema, files: Iterable[AddFile]) -> WaitingPromotion:
    """Return the promotion, to `number` instead of `double` unless every long of the column surely is a double."""
    if (promotion.was, promotion.type) != (t.LONG.text, t.DOUBLE):
        return promotion
    columns = _columns_to(schema, promotion.field)
    if all(_within(file, columns, EXACT_DOUBLE_MAX) for file in files):
        return promotion
    return msgspec.structs.replace(promotion, to=t.Number().text)


def next_promotion(metadata: Metadata, files: Collection[AddFile]) -> "ColumnPromotion | None":
    """Return what is to be done next in a table with this metadata and these files; None when nothing waits."""
    if PROMOTIONS not in metadata.configuration or not (waiting := waiting_promotions(metadata)):
        return None
    schema = schema_of(metadata)
    return ColumnPromotion([exact(each, schema, files) for each in waiting])


class ColumnPromotion:
    """A `ColumnChange`: these fields get these types."""

    task = MaintenanceTask.PROMOTION
    operation = "CDC PROMOTE"

    def __init__(self, promotions: Sequence[WaitingPromotion]) -> None:
        self._promotions = tuple(promotions)

    def __str__(self) -> str:
        fields = ", ".join(f"{each.field} from {each.was} to {each.to}" for each in self._promotions)
        return f"promotion of {fields}"

    def metadata(self, now: Metadata, version: int) -> Metadata:  # noqa: ARG002
        """See `ColumnChange`."""
        changed = with_schema(now, self._schema(now))
        done = {each.field for each in self._promotions}
        waiting = [each for each in waiting_promotions(now) if each.field not in done]
        configuration = {name: value for name, value in changed.configuration.items() if name != PROMOTIONS}
        if waiting:
            configuration[PROMOTIONS] = msgspec.json.encode(waiting).decode()
        return msgspec.structs.replace(changed, configuration=configuration)

    def cause(self, commit_id: str, at_ms: int) -> SchemaCause:
        """See `ColumnChange`."""
        return SchemaCause(SchemaOperation.PROMOTED, commit_id, at_ms)

    def conversion(self, now: Metadata) -> "FittedRows":
        """See `ColumnChange`."""
        return FittedRows(now, self._schema(now))

    def _schema(self, now: Metadata) -> DocumentSchema:
        schema = schema_of(now)
        for promotion in self._promotions:
            if not promotion.applies_to(schema):
                raise Overtaken(f"{promotion.field} is no longer {promotion.was}")
            schema = DocumentSchema(_with_type(schema, pointer_names(promotion.field), promotion.type))
        return schema


class FittedRows:
    """A `Conversion`: the same documents in other columns, which hold what of them was rescued if they can."""

    def __init__(self, now: Metadata, target: DocumentSchema) -> None:
        self._target = target
        self._rows = DocumentRows(now, target)
        self.schema = self._rows.schema

    def convert(self, rows: pa.Table) -> pa.Table:
        """See `Conversion`."""
        return self._rows.with_documents(rows, fit(self._rows.documents(rows), self._target))


def _with_type(struct: t.Struct, names: Sequence[str], type_: t.FieldType) -> tuple[t.Field, ...]:
    def changed(member: t.Field) -> t.Field:
        if member.name != names[0]:
            return member
        if len(names) > 1 and isinstance(member.type, t.Struct):
            return replace(member, type=t.Struct(_with_type(member.type, names[1:], type_)))
        return replace(member, type=type_)

    return tuple(map(changed, struct.fields))


def _columns_to(schema: t.Struct, pointer: str) -> list[str]:
    """Return the names of the columns on the way to a field."""
    columns = []
    at: t.FieldType = schema
    for name in pointer_names(pointer):
        if isinstance(at, t.Struct):
            columns.append(at.by_name[name].column)
            at = at.by_name[name].type
    return columns


def _within(file: AddFile, columns: Sequence[str], bound: int) -> bool:
    """Tell whether the file's stats say that all values of the column lie within ±`bound`."""
    stats = msgspec.json.decode(file.stats or "{}")
    nulls = _stat(stats.get("nullCount"), columns)
    if nulls is None and 0 < _leaves(stats.get("nullCount")) < INDEXED_COLUMNS:  # the file was written without it
        return True
    if nulls is not None and nulls == stats.get("numRecords"):
        return True
    low, high = (_stat(stats.get(name), columns) for name in ("minValues", "maxValues"))
    return isinstance(low, int) and isinstance(high, int) and -bound <= low and high <= bound


def _leaves(values: Any) -> int:
    return sum(map(_leaves, values.values())) if isinstance(values, dict) else int(values is not None)


def _stat(values: Any, columns: Sequence[str]) -> Any:
    for column in columns:
        values = values.get(column) if isinstance(values, dict) else None
    return values
