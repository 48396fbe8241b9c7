"""What tells the time in the source, and which of the two ways a pipeline uses."""

from typing import Protocol

from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import InvalidSettings
from cdc_shared.source.mongodb_source import MongodbSource
from delta_writer.watermark.resume_token import ResumeTokenSource
from delta_writer.watermark.sentinel import SentinelSource


class TimeSource(Protocol):
    """What tells up to which source time the connector has sent everything."""

    def next(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` for a time, in ms, strictly before which everything was sent and committed to Kafka.

        Raises `Transient` or `Fatal` when it cannot tell; it is asked again.
        """

    def close(self) -> None:
        """Give back what it holds."""


def time_source(
    spec: PipelineSpec, source: MongodbSource, admin: AdminClient, bootstrap_servers: str, connect_url: str | None
) -> TimeSource:
    """Return what the spec asks for. Connects to nothing. Raises `InvalidSettings` when CONNECT_URL is missing."""
    if spec.watermark.source == "sentinel":
        return SentinelSource(spec, source, admin, bootstrap_servers)
    if connect_url is None:
        raise InvalidSettings(
            f"pipeline {spec.name} has watermark.source: resume_token, so the writer must reach Kafka Connect: set "
            "CONNECT_URL, or watermark.source: sentinel if the source may be written"
        )
    return ResumeTokenSource(spec.name, ConnectClient(connect_url), spec.watermark.interval_s)
