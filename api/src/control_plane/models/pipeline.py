"""Pipelines: what people ask for (`PipelineConfig`), how it stands (`PipelineStatus`), and the row both come from."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError, model_validator

from cdc_shared.models.common import (
    BatchSpec,
    CollectionName,
    MaintenanceSpec,
    PipelineName,
    PipelineSpec,
    SinkSpec,
    SourceSpec,
    WatermarkSpec,
)
from cdc_shared.models.data_quality import EvolutionSpec, QualitySpec
from cdc_shared.models.spec_model import SpecModel
from control_plane.models.operation import Operation

MAX_COLLECTIONS_PER_RESYNC: Final = 1000


class Desired(StrEnum):
    """What a pipeline is wanted to be."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class PipelineConfig(SpecModel):
    """What people say of a pipeline: a `PipelineSpec` without what the platform adds to it when it is published, which
    is the version of its rules and the state it is wanted in. The text of a rule's secret is never in it, only a
    reference.
    """

    name: PipelineName
    source: SourceSpec
    sink: SinkSpec = SinkSpec()
    batch: BatchSpec = BatchSpec()
    maintenance: MaintenanceSpec = MaintenanceSpec()
    watermark: WatermarkSpec = WatermarkSpec()
    quality: QualitySpec = QualitySpec()
    evolution: EvolutionSpec = EvolutionSpec()
    topic_partitions: StrictInt = Field(default=1, ge=1, le=1000)
    """Partitions of each change topic, fixed from the first start on."""

    @model_validator(mode="after")
    def _is_a_spec(self) -> Self:
        if self.quality.version:
            raise ValueError("quality.version is counted when the pipeline is published: leave it out")
        try:
            self.spec()
        except ValidationError as error:
            messages = (each["msg"].removeprefix("Value error, ") for each in error.errors(include_input=False))
            raise ValueError("; ".join(messages)) from None
        return self

    def spec(self, desired: Desired = Desired.RUNNING) -> PipelineSpec:
        """The spec that is published, as yet without a version of its rules. A paused pipeline's says `running`: what
        Kafka has is still to come into the tables.
        """
        wanted = "stopped" if desired is Desired.STOPPED else "running"
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        return PipelineSpec.model_validate({**parts, "desired": wanted})

    def stored(self) -> dict[str, Any]:
        """The content of `pipelines.spec`, and of `spec` in answers. `model_validate` reads it back."""
        return self.model_dump(mode="json", exclude={"quality": {"version"}})


class State(StrEnum):
    """What a pipeline is, made of what it is wanted to be and what the controller sees (`services.lifecycle`)."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    DEGRADED = "degraded"
    """It has been what it is wanted to be, and something is wrong now: the conditions say what."""
    FAILED = "failed"
    """It does not get further by itself: the conditions say why."""
    RESYNCING = "resyncing"
    DELETING = "deleting"


class ConditionKind(StrEnum):
    CONNECTOR_RUNNING = "ConnectorRunning"
    SPEC_PUBLISHED = "SpecPublished"
    WRITER_RUNNING = "WriterRunning"
    SOURCE_REACHABLE = "SourceReachable"
    RESYNC_NEEDED = "ResyncNeeded"
    OPLOG_AT_RISK = "OplogAtRisk"
    PROGRESSING = "Progressing"


class ConditionStatus(StrEnum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """The reasons that a pipeline's state rests on. A condition may have others."""

    RUNNING = "Running"
    STARTING = "Starting"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    ABSENT = "Absent"
    """There is none: no connector, no writer that has taken the pipeline, no spec that was ever published."""
    SILENT = "Silent"
    """The writer that had the pipeline has said nothing for so long that it is gone."""
    FAILED = "Failed"
    """It says itself that it goes no further."""
    REFUSED = "Refused"
    """What it was told will never be accepted."""
    UNAVAILABLE = "Unavailable"
    """It could not be asked."""


class Condition(BaseModel):
    """Something that the controller has seen of a pipeline: what, since when, and why."""

    model_config = ConfigDict(frozen=True)

    kind: str
    status: ConditionStatus
    reason: str
    """A word for programs."""
    message: str
    """A sentence for people."""
    since: datetime
    """Since when status and reason are what they are."""


@dataclass(frozen=True, slots=True)
class PipelineRecord:
    """Everything that Postgres knows of one pipeline."""

    name: str
    id: UUID
    spec: dict[str, Any]
    """`PipelineConfig.stored`; read it with `control_plane.services.lifecycle.config_of`."""
    version: int
    desired: Desired
    desired_version: int
    """Counts moves; 0 when it was never started."""
    desired_since: datetime
    started: bool
    """Since it was made, or since a reset dropped its tables."""
    deleting: bool
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    reached_version: int = 0
    """The `desired_version` that the controller last made true."""
    published_version: int | None = None
    rules_version: int | None = None
    observed_at: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    operations: tuple[Operation, ...] = ()
    """The unfinished ones, in their order."""

    @property
    def etag(self) -> str:
        """Names this state of the spec, quoted as HTTP wants it. One of a pipeline made anew is never equal."""
        return f'"{self.id.hex[:12]}-{self.version}"'

    @property
    def is_outside(self) -> bool:
        """Whether the connector and the spec of this name are this pipeline's. Before the first start, whatever has its
        name outside belongs to somebody else and is left alone."""
        return self.started or self.published_version is not None

    def condition(self, kind: ConditionKind) -> Condition | None:
        return next((each for each in self.conditions if each.kind == kind), None)


class PipelineStatus(BaseModel):
    """How a pipeline stands."""

    state: State
    desired: Desired
    since: datetime = Field(description="when `desired` was asked for")
    observed_at: datetime | None = Field(default=None, description="when the controller last looked; null: never yet")
    conditions: list[Condition]
    operations: list[Operation] = Field(description="the unfinished ones, in the order in which they are worked")


class Pipeline(BaseModel):
    """A pipeline, as the API gives it."""

    name: str
    version: int = Field(description="counts changes of the spec")
    rules_version: int | None = Field(default=None, description="of the rules that are published; null: none are yet")
    spec: PipelineConfig
    status: PipelineStatus
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    notices: list[str] = Field(default=[], description="what whoever made this change should know")


class ResyncRequest(SpecModel):
    """Which documents are read again. Nothing named: the whole pipeline."""

    collections: Annotated[tuple[CollectionName, ...], Field(max_length=MAX_COLLECTIONS_PER_RESYNC)] = ()
    filter: dict[str, Any] | None = Field(
        default=None,
        description="a MongoDB filter in Extended JSON: only the documents of the one collection that match it now",
        examples=[{"status": "open"}],
    )


class ResetRequest(SpecModel):
    """Whether the tables stay when the pipeline forgets how far it has read."""

    keep_tables: StrictBool = True
