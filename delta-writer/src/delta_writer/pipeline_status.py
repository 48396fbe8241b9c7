"""The state of a pipeline in this writer."""

from dataclasses import dataclass

from cdc_shared.metrics.prometheus_metrics import PipelineState


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """A pipeline's state and, when it failed or waits, why."""

    state: PipelineState
    reason: str | None = None
    findings: tuple[str, ...] = ()
    """What somebody should look at although the pipeline goes on."""
    since_ms: int | None = None
    """When it came into this state, by the writer's clock."""
