"""What writers have reported of a pipeline."""

from __future__ import annotations

from kafka_reading import records_since

from cdc_shared.kafka.status_topic import WriterReport, decode_report, key_of
from cdc_shared.kafka.topics import STATUS_TOPIC


def last_reports(bootstrap_servers: str, pipeline: str) -> dict[str, WriterReport]:
    """The last report of each writer of the pipeline in `cdc.status`, none of those that took it back."""
    records = {key_of(each): each.value() for each in records_since(bootstrap_servers, STATUS_TOPIC, 0)}
    return {writer: decode_report(value) for (name, writer), value in records.items() if name == pipeline and value}


def last_report(bootstrap_servers: str, pipeline: str) -> WriterReport:
    """That of the only writer that the pipeline ever had."""
    (report,) = last_reports(bootstrap_servers, pipeline).values()
    return report
