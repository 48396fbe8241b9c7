"""Bringing a pipeline to run by its spec: the whole way that scripts go."""

from collections.abc import Callable

from cdc_shared.errors import Fatal
from cdc_shared.models.common import PipelineSpec
from control_plane.client.pipelines import Pipelines
from control_plane.models.pipeline import Desired, Pipeline, PipelineConfig, State
from control_plane.models.preflight import CheckOutcome, PreflightReport

RUNS = (State.RUNNING, State.RESYNCING)


class PreflightFailed(Fatal):
    """The pipeline would not run; the report says why."""

    def __init__(self, report: PreflightReport) -> None:
        failed = [each for each in report.checks if each.outcome is CheckOutcome.FAILED]
        super().__init__("; ".join(f"{each.name}: {each.message}" for each in failed))
        self.report = report


def config_from(spec: PipelineSpec) -> PipelineConfig:
    """What the API takes of a spec. Raises `Fatal` for what only the platform may say."""
    if spec.quality.version:
        raise Fatal("quality.version is counted when the pipeline is published: leave it out")
    return PipelineConfig(**{name: getattr(spec, name) for name in PipelineConfig.model_fields})


def check(pipelines: Pipelines, config: PipelineConfig) -> PreflightReport:
    """The preflight of a spec. Raises `PreflightFailed` when it would not run."""
    report = pipelines.validate(config)
    if not report.valid:
        raise PreflightFailed(report)
    return report


def run(
    pipelines: Pipelines, config: PipelineConfig, within_s: float, on_change: Callable[[Pipeline], None]
) -> Pipeline:
    """Bring the pipeline to this spec and to run, whatever it was before, and wait for that. Repeating it is harmless.

    Raises `ApiError`, `Fatal` when it has failed, `Transient` when it does not run in time.
    """
    pipeline = pipelines.apply(config)
    match pipeline.status.desired:
        case Desired.STOPPED:
            pipeline = pipelines.start(config.name)
        case Desired.PAUSED:
            pipeline = pipelines.resume(config.name)
        case Desired.RUNNING if pipeline.status.state is State.FAILED:
            pipelines.wait_for(pipelines.restart(config.name), within_s)
    return pipelines.wait_until(config.name, RUNS, within_s, on_change)
