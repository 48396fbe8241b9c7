"""Which way of telling the time a pipeline uses."""

from typing import Any

import pytest

from cdc_shared.models.common import PipelineSpec, SourceSpec, WatermarkSpec
from cdc_shared.settings import InvalidSettings
from delta_writer.watermark.resume_token import ResumeTokenSource
from delta_writer.watermark.sentinel import SentinelSource
from delta_writer.watermark.time_source import time_source

pytestmark = pytest.mark.unit

NOT_USED: Any = None


def spec(source: Any) -> PipelineSpec:
    mongodb = SourceSpec(connection="env:X", database="d")
    return PipelineSpec(name="p", source=mongodb, watermark=WatermarkSpec(source=source))


def chosen(source: str, connect_url: str | None) -> Any:
    return time_source(spec(source), NOT_USED, NOT_USED, "kafka:9092", connect_url)


def test_by_default_the_source_is_written() -> None:
    assert PipelineSpec(name="p", source=SourceSpec(connection="env:X", database="d")) == spec("sentinel")
    assert isinstance(chosen("sentinel", None), SentinelSource)


def test_else_kafka_connect_is_asked_and_must_be_known() -> None:
    assert isinstance(chosen("resume_token", "http://connect:8083"), ResumeTokenSource)
    with pytest.raises(InvalidSettings, match=r"pipeline p has .* set CONNECT_URL"):
        chosen("resume_token", None)
