"""What a pipeline is: the spec that people write in YAML and that services exchange through the topic `cdc.pipelines`.

Every model is frozen and refuses unknown fields. No message that comes out of here repeats an input value, because the
most likely mistake is a connection string with a password where a reference to a secret belongs.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from cdc_shared.errors import Fatal
from cdc_shared.models.data_quality import PATH_PATTERN, RULE_NAME_PATTERN, EvolutionSpec, QualitySpec
from cdc_shared.models.spec_model import SpecModel
from cdc_shared.security.references import REFERENCE_PATTERN

PIPELINE_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,40}$"

MIN_BATCH_SECONDS = 0.1

HISTORY_SUFFIX = "__changes"
"""How the name of a history table ends; it begins with the collection's."""

DEAD_LETTERS_DIRECTORY = "_dead_letters"
"""Beside the databases of a pipeline's tables: where its large dead letters are."""

RECONCILIATION_DIRECTORY = "_reconciliation"
"""There as well: the reports of its reconciliations."""

NO_TABLES: Final = {DEAD_LETTERS_DIRECTORY: "dead letters", RECONCILIATION_DIRECTORY: "reports of reconciliation"}
"""Directories beside the databases, and what lies there."""

SENTINEL_COLLECTION = "cdc_heartbeat"
"""The platform's own collection in every source database (docs/adr/0012-watermark.md). It becomes no table."""

PipelineName = Annotated[str, StringConstraints(pattern=PIPELINE_NAME_PATTERN)]
CollectionName = Annotated[str, StringConstraints(min_length=1, max_length=255)]

_RULES = ("validation", "transformation")
_STORE_SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
"""What no URL means anything else by. The longest are Google's, of several words."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LOCAL_ROOT = re.compile(r"(file://(localhost)?)?/(?!/)[^\x00-\x1f\x7f]*")
_FORBIDDEN_IN_DATABASE = re.compile(r'[/\\. "$*<>:|?\x00]')


class InvalidSpec(Fatal):
    """A pipeline spec that cannot be used. The message names where it came from, the field and the remedy."""


class SourceSpec(SpecModel):
    """The MongoDB deployment and what of it is captured. Collection names are plain names, not patterns."""

    connection: Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
    """A reference to the connection string: `secret:<name>` or `env:<VARIABLE>`."""
    database: Annotated[
        str,
        StringConstraints(min_length=1, max_length=63),
        Field(json_schema_extra={"pattern": r'^[^/\\\. "$*<>:|?\x00]+$'}),  # told; what is refused is said in words
    ]
    include_collections: tuple[CollectionName, ...] = ()
    """Only these; empty means every collection of the database, also those made later."""
    exclude_collections: tuple[CollectionName, ...] = ()
    """Every collection but these. Not together with `include_collections`."""
    snapshot_mode: Literal["initial", "initial_only", "when_needed", "always", "no_data"] = "initial"
    capture_mode: Literal["change_streams_update_full", "change_streams_update_full_with_pre_image"] = (
        "change_streams_update_full"
    )
    """Only modes whose updates carry the whole document: the table holds whole rows."""

    def captures(self, collection: str) -> bool:
        """Whether changes of this collection of `database` come to a table."""
        if self.include_collections:
            return collection in self.include_collections
        return collection not in (*self.exclude_collections, SENTINEL_COLLECTION)

    @field_validator("database")
    @classmethod
    def _database_can_exist(cls, name: str) -> str:
        if _FORBIDDEN_IN_DATABASE.search(name):
            raise ValueError('a MongoDB database name has none of / \\ . " $ * < > : | ? and no space')
        if name in NO_TABLES:
            raise ValueError(
                f"tables of a database named {name} would lie among the {NO_TABLES[name]}; rename the database"
            )
        return name

    @model_validator(mode="after")
    def _collections_make_sense(self) -> Self:
        if self.include_collections and self.exclude_collections:
            raise ValueError("give include_collections or exclude_collections, not both")
        for name in (*self.include_collections, *self.exclude_collections):
            if "\x00" in name or "$" in name or name.startswith("system."):
                raise ValueError("a captured collection's name has no $, no NUL, and does not start with system.")
            if name == SENTINEL_COLLECTION:
                raise ValueError(
                    f"{name} is the platform's own collection: it is captured in any case and becomes no table; "
                    "take it off the list, and rename a collection of yours that has this name"
                )
            if name.startswith(f"{self.database}."):
                raise ValueError(f"collections are named without their database: drop the leading {self.database}.")
        return self


class SinkSpec(SpecModel):
    """Where the tables go and how they are written."""

    root: str | None = None
    """`s3://bucket/prefix`, `gs://…`, `az://…`, `file:///path` or an absolute path; None is the writer's DELTA_ROOT."""
    mode: Literal["deletion_vectors", "copy_on_write"] = "deletion_vectors"
    history: StrictBool = False
    """Whether each collection also gets an append-only table `<collection>__changes`, a row for every event."""

    @field_validator("root")
    @classmethod
    def _root_is_absolute(cls, root: str | None) -> str | None:
        if root is None or _LOCAL_ROOT.fullmatch(root):
            return root
        scheme, _, rest = root.partition("://")
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket:
            raise ValueError("credentials do not belong in sink.root: set them in the writer's environment")
        if scheme not in _STORE_SCHEMES or not _BUCKET.fullmatch(bucket) or _CONTROL.search(prefix):
            raise ValueError("give s3://bucket/prefix, gs://…, az://…, file:///path or an absolute path")
        return root


class BatchSpec(SpecModel):
    """A batch closes on whichever of these comes first."""

    max_rows: StrictInt = Field(default=50_000, ge=1, le=5_000_000)
    max_bytes: StrictInt = Field(default=64 * 1024 * 1024, ge=64 * 1024, le=4 * 1024**3)
    """Bytes of Kafka keys and values as consumed, before decoding."""
    max_seconds: StrictFloat = Field(default=2.0, ge=MIN_BATCH_SECONDS, le=3600)


class MaintenanceSpec(SpecModel):
    """How the writer looks after the tables (docs/architecture/maintenance.md), within bounds for the pipeline."""

    retention_days: StrictInt = Field(default=30, ge=1, le=3650)
    """How far back readers can travel in time. Files that were replaced take space for as long."""
    target_file_mb: StrictInt = Field(default=128, ge=1, le=1024)
    """Small data files are put together up to this size."""
    cpu_share: StrictFloat = Field(default=0.25, gt=0, le=1)
    """Of one core; all tables of a process take turns."""
    max_mb_per_s: StrictFloat = Field(default=50, gt=0, allow_inf_nan=False)
    """Of data files read and written."""


class WatermarkSpec(SpecModel):
    """How the tables learn up to which source time they are complete."""

    interval_s: StrictFloat = Field(default=5.0, ge=1, le=3600)
    """How often it may rise. A quiet table gets one small commit each time; a busy one gets none of its own."""
    source: Literal["sentinel", "resume_token"] = "sentinel"
    """`sentinel`: a document that the writer updates in the source's collection `cdc_heartbeat`. `resume_token`: the
    connector's committed position, for a source that may not be written; the writer then needs CONNECT_URL."""


class PipelineSpec(SpecModel):
    """One pipeline: one database of one MongoDB deployment into Delta tables. `name` is also the `topic.prefix`."""

    name: PipelineName
    source: SourceSpec
    sink: SinkSpec = SinkSpec()
    batch: BatchSpec = BatchSpec()
    maintenance: MaintenanceSpec = MaintenanceSpec()
    watermark: WatermarkSpec = WatermarkSpec()
    quality: QualitySpec = QualitySpec()
    evolution: EvolutionSpec = EvolutionSpec()
    topic_partitions: StrictInt = Field(default=1, ge=1, le=1000)
    """Partitions of each change topic, fixed when the topic is created; a later change means a resync."""
    desired: Literal["running", "stopped"] = "running"
    """`stopped`: writers end the pipeline and keep its tables and offsets; `running` again, they go on from there. A
    pipeline whose connector alone is paused is `running`: what Kafka has is still to come into the tables."""

    @model_validator(mode="after")
    def _rules_make_sense(self) -> Self:
        if not self.quality.validation and not self.quality.transformation:
            return self
        # Imported when there are rules to check: the engines are large, and know the models of this package.
        from cdc_shared.rules.compiled import check_rules
        from cdc_shared.rules.rule_checks import InvalidRules

        try:
            check_rules(self.quality)
        except InvalidRules as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _history_has_its_names(self) -> Self:
        for name in self.source.include_collections:
            if self.sink.history and name.endswith(HISTORY_SUFFIX):
                raise ValueError(
                    f"with sink.history no collection is captured whose name ends in {HISTORY_SUFFIX}: its table would "
                    "go where a history goes"
                )
        return self


def load_spec(path: Path | str) -> PipelineSpec:
    """Read one spec from a YAML file. Raises `InvalidSpec` naming the file, every field at fault and its remedy."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSpec(f"{path}: cannot be read: {error.strerror}; give the path of a readable YAML file") from None
    except UnicodeDecodeError:
        raise InvalidSpec(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # nosec B506 # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise InvalidSpec(f"{path}:{place} is not valid YAML ({error.problem}); correct that line") from None
    except yaml.YAMLError:
        raise InvalidSpec(f"{path}: is not valid YAML; remove control characters from it") from None
    if not isinstance(content, dict):
        raise InvalidSpec(f"{path}: holds no mapping; begin with name:, source: and sink:")
    return _validated(content, str(path))


def encode_spec(spec: PipelineSpec) -> bytes:
    """The spec as the value of a record in `cdc.pipelines` (JSON, UTF-8). Its key is `spec.name`."""
    return spec.model_dump_json().encode()


def decode_spec(name: str, value: bytes) -> PipelineSpec:
    """The inverse of `encode_spec`. Raises `InvalidSpec` when the value is no spec, or is one of another pipeline."""
    where = f"spec of pipeline {name!r} in cdc.pipelines"
    try:
        spec = PipelineSpec.model_validate_json(value)
    except ValidationError as error:
        raise InvalidSpec(_explain(error, where)) from None
    if spec.name != name:
        raise InvalidSpec(f"{where}: its name is {spec.name!r}; publish it again under its own name")
    return spec


PATTERN_REMEDIES: Final = {
    PIPELINE_NAME_PATTERN: "must be 1 to 41 of a-z, 0-9 and -, beginning with a letter (it prefixes the topics' names)",
    PATH_PATTERN: "must begin with /, as /address/zip; of a name that has them, ~ is written ~0 and / is written ~1",
    REFERENCE_PATTERN: "is not a reference; write secret:<name> or env:<VARIABLE>, never the secret itself",
    RULE_NAME_PATTERN: "must be 1 to 64 of A-Z, a-z, 0-9, _, . and -",
}
"""What a text must be that does not match, for messages: a pattern tells people little."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice, where YAML's usual loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"{key_node.value} is given twice", problem_mark=key_node.start_mark)
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _validated(content: dict[str, Any], where: str) -> PipelineSpec:
    try:
        return PipelineSpec.model_validate(content)
    except ValidationError as error:
        raise InvalidSpec(_explain(error, where, content)) from None


def _explain(error: ValidationError, where: str, content: Any = None) -> str:
    problems = error.errors(include_url=False, include_input=False)
    return f"{where}: " + "; ".join(_explain_one(problem, content) for problem in problems)


def _field(loc: tuple[int | str, ...], content: Any) -> str:
    """`quality.validation rule 2 NAME (range).path`: what stands in a list is counted from 1; the kind follows it."""
    text = ""
    for index, part in enumerate(loc):
        content = _within(content, part)
        above = loc[index - 1] if index else ""
        if isinstance(part, int):
            text += f" {'rule' if above in _RULES else 'entry'} {part + 1}"
            name = _within(content, "name")
            text += f" {name}" if isinstance(name, str) and re.match(RULE_NAME_PATTERN, name) else ""
        elif isinstance(above, int) and index > 1 and loc[index - 2] in _RULES:
            text += f" ({part})"
        else:
            text += f".{part}" if text else str(part)
    return text or "the spec"


def _within(content: Any, part: int | str) -> Any:
    try:
        return content[part]
    except (LookupError, TypeError):
        return None


def _explain_one(problem: ErrorDetails, content: Any) -> str:
    field = _field(problem["loc"], content)
    kind = problem["type"]
    if kind == "missing":
        return f"{field} is missing; add it"
    if kind == "extra_forbidden":
        return f"{field} is not a known field; {_known_field_hint(problem['loc'])}"
    if problem["loc"] == ("source", "connection"):
        return (
            f"{field} is not a reference; write secret:<name> or env:<VARIABLE>, never the connection string itself "
            "(the spec is stored in a topic)"
        )
    if kind == "string_pattern_mismatch" and (why := PATTERN_REMEDIES.get(problem["ctx"]["pattern"])):
        return f"{field} {why}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}"


def _known_field_hint(loc: tuple[int | str, ...]) -> str:
    """Names the fields that the enclosing model has, and the closest one to what was written."""
    model: type[BaseModel] = PipelineSpec
    for part in loc[:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return "remove it"
        model = annotation
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"remove it (known: {', '.join(known)})"
