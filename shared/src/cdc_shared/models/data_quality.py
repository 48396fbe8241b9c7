"""What a pipeline does with its documents on their way to the tables: the `quality` and `evolution` parts of its spec.

Paths are JSON Pointers (RFC 6901) in the names that MongoDB has, as in `_cdc_rescued`: `/email`, `/address/zip`. The
token `*` stands for every element of an array: `/contacts/*/email`. A field whose own name is `*` cannot be named.

Rules are applied in their order, each to what the one before it left. What each does, value by value, is said in
docs/architecture/data-quality.md; the engines are in `cdc_shared.rules`.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints

from cdc_shared.models.spec_model import SpecModel
from cdc_shared.security.references import REFERENCE_PATTERN

PATH_PATTERN: Final = r"^(/([^~/]|~[01])*)+$"
MEBIBYTE: Final = 1024 * 1024
MONGODB_MAX_DOCUMENT_BYTES: Final = 16 * MEBIBYTE
"""What MongoDB itself accepts: a larger document is no document of its, whatever the policy says."""

Path = Annotated[str, StringConstraints(pattern=PATH_PATTERN, max_length=1024)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
SecretReference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
RULE_NAME_PATTERN: Final = r"^[A-Za-z0-9_.-]{1,64}$"
RuleName = Annotated[str, StringConstraints(pattern=RULE_NAME_PATTERN)]

OnFailure = Literal["dlq", "skip", "fail"]
"""`dlq`: to the dead letters. `skip`: dropped, counted and logged. `fail`: the pipeline stops and names the event."""

ConflictMode = Literal["rescue", "string", "json", "fail"]
TypeName = Literal[
    "string", "long", "double", "number", "boolean", "decimal", "date", "objectId", "uuid", "binary", "regex",
    "timestamp", "object", "array",
]  # fmt: skip
"""`number` is a long or a double; the others are the types of docs/architecture/types.md."""


class CollectionRule(SpecModel):
    """What every rule has."""

    collections: tuple[str, ...] = ()
    """The collections it is for; none named means all."""

    def concerns(self, collection: str) -> bool:
        """Whether the rule is for documents of this collection."""
        return not self.collections or collection in self.collections


# --- transformation ---------------------------------------------------------------------------------------------------


class Rename(CollectionRule):
    """Give a field another name beside its siblings. A sibling of that name gives way to a value."""

    rule: Literal["rename"]
    path: Path
    to: FieldName


class Convert(CollectionRule):
    """Turn values into another type where that is exact; others stay as they are."""

    rule: Literal["convert"]
    path: Path
    to: Literal["string", "long", "double", "decimal", "boolean", "date", "json"]


class Drop(CollectionRule):
    """Leave a field out."""

    rule: Literal["drop"]
    path: Path


class Constant(CollectionRule):
    """Set a field to a value, in every document, or every object at its parent's path: also where it is missing."""

    rule: Literal["constant"]
    path: Path
    value: str | int | float | bool


class Flatten(CollectionRule):
    """Put an object's members, at every depth, beside it as `<name><separator><member>`, in its place."""

    rule: Literal["flatten"]
    path: Path
    separator: Annotated[str, StringConstraints(min_length=1, max_length=8)] = "_"


class Include(CollectionRule):
    """Keep only these fields (whole, or the named parts of them) and `_id`."""

    rule: Literal["include"]
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]


class Exclude(CollectionRule):
    """Leave these fields out."""

    rule: Literal["exclude"]
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]


class Redact(CollectionRule):
    """Mask: every value becomes the same text."""

    rule: Literal["redact"]
    path: Path
    text: str = "***"


class Partial(CollectionRule):
    """Mask: every character becomes `*` but the last `keep_last`; a text no longer than that is masked whole."""

    rule: Literal["partial"]
    path: Path
    keep_last: StrictInt = Field(default=4, ge=1, le=64)


class Hash(CollectionRule):
    """Mask: the HMAC-SHA-256 of the value in hexadecimal digits. Equal values stay equal, so joins still work."""

    rule: Literal["hash"]
    path: Path
    key: SecretReference


class EmailMask(CollectionRule):
    """Mask: an address becomes one that nobody has; a person's stays the same one. Other values are redacted."""

    rule: Literal["email"]
    path: Path
    key: SecretReference
    keep_domain: StrictBool = False


class TruncateDate(CollectionRule):
    """Mask: a date is set back to the beginning (UTC) of its year, month, day or hour; anything else is redacted."""

    rule: Literal["truncate_date"]
    path: Path
    to: Literal["year", "month", "day", "hour"]


MaskRule = Redact | Partial | Hash | EmailMask | TruncateDate
TransformationRule = Annotated[
    Rename | Convert | Drop | Constant | Flatten | Include | Exclude | MaskRule, Field(discriminator="rule")
]


# --- validation -------------------------------------------------------------------------------------------------------


class Check(CollectionRule):
    """What every validation rule has. Null and missing values pass every check but `required`."""

    name: RuleName | None = None
    """Names the rule in metrics and reasons; otherwise its kind and path do."""
    on_failure: OnFailure | None = None
    """What becomes of a document that fails; otherwise what `dirty_data.policy` says."""


class Required(Check):
    """The field has a value."""

    rule: Literal["required"]
    path: Path


class TypeCheck(Check):
    """The value is of one of these types."""

    rule: Literal["type"]
    path: Path
    types: Annotated[tuple[TypeName, ...], Field(min_length=1)]


class Range(Check):
    """A number, or a date (bounds as ISO 8601 text), lies within the bounds, which count as within."""

    rule: Literal["range"]
    path: Path
    min: StrictInt | StrictFloat | str | None = None
    max: StrictInt | StrictFloat | str | None = None


class Length(Check):
    """A text's characters, a binary's bytes or an array's elements are that many."""

    rule: Literal["length"]
    path: Path
    min: StrictInt | None = Field(default=None, ge=0)
    max: StrictInt | None = Field(default=None, ge=0)


class Regex(Check):
    """A text matches the whole of a regular expression (RE2 syntax)."""

    rule: Literal["regex"]
    path: Path
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Enum(Check):
    """The value is one of these."""

    rule: Literal["enum"]
    path: Path
    values: Annotated[tuple[str | int | float | bool, ...], Field(min_length=1)]


class Unique(Check):
    """No other document of the same batch has the value; the first to come keeps it."""

    rule: Literal["unique"]
    path: Path


class Compare(Check):
    """A field stands in a relation to another one. It passes when either is null."""

    rule: Literal["compare"]
    path: Path
    operator: Literal["==", "!=", "<", "<=", ">", ">="]
    other: Path


class Sql(Check):
    """A boolean SQL expression (DuckDB's dialect) over the row's columns; passes unless it is false."""

    rule: Literal["sql"]
    expression: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Filter(Check):
    """The document belongs to the pipeline: a boolean SQL expression, as of `Sql`, is true, or cannot be evaluated.

    One that does not match has no row: it is not written, and where it did match before, its row is deleted.
    """

    rule: Literal["filter"]
    expression: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    on_failure: Literal["skip"] = "skip"


ValidationRule = Annotated[
    Required | TypeCheck | Range | Length | Regex | Enum | Unique | Compare | Sql | Filter, Field(discriminator="rule")
]


# --- the parts of a spec ----------------------------------------------------------------------------------------------


class DirtyDataSpec(SpecModel):
    """What becomes of records that are no change of a document, and of documents that fail a rule."""

    policy: OnFailure = "dlq"
    max_document_size: StrictInt = Field(default=10 * MEBIBYTE, ge=1024)
    """Bytes of a document's JSON text, above which `policy` applies. Above 16 MiB it is a dead letter always."""
    rejected_updates: Literal["keep", "delete"] = "keep"
    """What a rejected change leaves of the document's row: its last valid state, or nothing."""
    max_dead_letters_per_minute: StrictInt = Field(default=1000, ge=1)
    """Above it the pipeline pauses itself: most likely a rule or the source is wrong, not every document."""


class QualitySpec(SpecModel):
    """Rules of one pipeline. They are reloaded while it runs; a row's `_cdc_rules_version` says which made it."""

    version: StrictInt = Field(default=0, ge=0, le=2**31 - 1)
    """Counted by whoever publishes the spec, up by one with each change of the rules. 0: there never were any."""
    dirty_data: DirtyDataSpec = DirtyDataSpec()
    validation: tuple[ValidationRule, ...] = ()
    transformation: tuple[TransformationRule, ...] = ()


class FieldEvolution(CollectionRule):
    """How one field meets values that its column cannot hold."""

    path: Path
    conflict_resolution_mode: ConflictMode


class PromotionSpec(SpecModel):
    """When a column is rewritten to a wider type in the background."""

    enabled: StrictBool = True
    after_conflicts: StrictInt = Field(default=1000, ge=1)
    """Values rescued for one field, counted since the writer opened the table."""


class EvolutionSpec(SpecModel):
    """How tables follow documents whose types change. `rescue`: NULL in the column, the value in `_cdc_rescued`."""

    conflict_resolution_mode: ConflictMode = "rescue"
    fields: tuple[FieldEvolution, ...] = ()
    promotion: PromotionSpec = PromotionSpec()
