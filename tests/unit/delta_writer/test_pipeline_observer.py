"""What is logged when a pipeline ends by itself."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from cdc_shared.errors import Fatal
from cdc_shared.metrics.prometheus_metrics import PipelineState, WriterMetrics
from delta_writer.metrics.data_quality_metrics import DataQualityMetrics
from delta_writer.pipeline_observer import PipelineObserver
from delta_writer.writer.flood_limit import TooManyDeadLetters

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "event", "state"),
    [
        (TooManyDeadLetters("too many"), "pipeline paused", PipelineState.PAUSED),
        (Fatal("cannot go on"), "pipeline stopped", PipelineState.FAILED),
    ],
)
def test_a_pause_is_not_logged_as_a_stop(error: Fatal, event: str, state: PipelineState) -> None:
    metrics, quality = WriterMetrics(CollectorRegistry()), DataQualityMetrics(CollectorRegistry())
    observer = PipelineObserver("shop", metrics, quality, lambda *_: None)
    with capture_logs() as said:
        observer.failed(error)
    assert [(each["event"], each["reason"]) for each in said if each["log_level"] == "error"] == [(event, str(error))]
    assert observer.status.state is state
