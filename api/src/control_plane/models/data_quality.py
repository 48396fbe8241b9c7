"""Data-quality rules of a pipeline, what they would do to real events, and how tables' schemas came to be."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cdc_shared.delta.schema_diff import FieldChange
from cdc_shared.delta.schema_history import SchemaChange
from cdc_shared.models.common import CollectionName
from cdc_shared.models.data_quality import DirtyDataSpec, QualitySpec, TransformationRule, ValidationRule
from cdc_shared.models.spec_model import SpecModel

MAX_SAMPLE = 200
DEFAULT_SAMPLE = 20


class RulesBody(SpecModel):
    """The rules of a pipeline; what each does is said in docs/architecture/data-quality.md."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dirty_data": {"policy": "dlq"},
                    "validation": [{"rule": "range", "name": "total-is-positive", "path": "/total", "min": 0}],
                    "transformation": [{"rule": "redact", "path": "/card/number"}],
                }
            ]
        }
    )

    dirty_data: DirtyDataSpec = DirtyDataSpec()
    validation: tuple[ValidationRule, ...] = ()
    transformation: tuple[TransformationRule, ...] = ()

    @classmethod
    def of(cls, quality: QualitySpec) -> Self:
        return cls(dirty_data=quality.dirty_data, validation=quality.validation, transformation=quality.transformation)

    def quality(self, version: int = 0) -> QualitySpec:
        """The same as the `quality` part of a spec."""
        return QualitySpec(
            version=version,
            dirty_data=self.dirty_data,
            validation=self.validation,
            transformation=self.transformation,
        )


class RulesView(BaseModel):
    """The rules that a pipeline is wanted to have."""

    rules: RulesBody
    pipeline_version: int
    """Of the pipeline, as in the ETag: a change of the rules is a change of the pipeline."""
    notices: list[str] = []
    """After a change: what should be done about rows that are there already."""


class RulesVersion(BaseModel):
    """Rules as they were published: what rows with this `_cdc_rules_version` were made by."""

    version: int
    rules: RulesBody


class DryRun(BaseModel):
    """What to try."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"collection": "orders", "sample": 20}]})

    collection: CollectionName
    sample: int = Field(default=DEFAULT_SAMPLE, ge=1, le=MAX_SAMPLE)
    """So many of the newest events of the collection that carry a document."""
    rules: RulesBody | None = None
    """The rules to try; without them those that the pipeline is wanted to have."""


class RejectedBy(BaseModel):
    """Why a document would not come to the table."""

    code: str
    rule: str | None
    message: str
    policy: Literal["dlq", "skip", "fail"]


class DryRunEvent(BaseModel):
    """What the rules would make of one event."""

    event: str
    """`topic:partition:offset`."""
    rejected: RejectedBy | None
    changed: list[str]
    """The fields (JSON Pointers) that would be other than MongoDB has them."""
    before: Any
    after: Any
    """The document, null when it is rejected."""


class DryRunResult(BaseModel):
    """What the rules would make of the newest events."""

    values_shown: bool
    """Whether documents are shown with their values, which takes the permission to see dead letters unmasked; otherwise
    each value is replaced by the name of its type."""
    read: int
    rejected: int
    changed: int
    events: list[DryRunEvent]


class SchemaFieldChange(BaseModel):
    """What became of one field."""

    change: Literal["added", "removed", "retyped", "renamed", "altered"]
    path: str
    """JSON Pointer in MongoDB's names, `*` for every element of an array."""
    column: str
    type: str
    was: str | None
    note: str | None
    event: str | None
    """The first event that showed an added field: `topic:partition:offset`."""

    @classmethod
    def of(cls, change: FieldChange) -> Self:
        return cls(
            change=change.change,
            path=change.path,
            column=change.column,
            type=change.type,
            was=change.was,
            note=change.note,
            event=None if change.event is None else str(change.event),
        )


class SchemaVersion(BaseModel):
    """One change of a table's schema."""

    version: int
    operation: str
    at: datetime
    rules_version: int
    fields: list[SchemaFieldChange]

    @classmethod
    def of(cls, change: SchemaChange) -> Self:
        return cls(
            version=change.version,
            operation=change.operation,
            at=datetime.fromtimestamp(change.at_ms / 1000, UTC),
            rules_version=change.rules_version,
            fields=[SchemaFieldChange.of(each) for each in change.fields],
        )


class SchemaHistory(BaseModel):
    """How a table's schema came to be, oldest change first."""

    table: Annotated[str, StringConstraints(min_length=1)]
    complete: bool
    """False when somebody has deleted the records of older changes."""
    versions: list[SchemaVersion]
    columns: Any
    """The schema in force now, as Delta writes it."""
