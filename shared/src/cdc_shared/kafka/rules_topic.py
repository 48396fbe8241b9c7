"""Every version of each pipeline's rules, in the compacted topic `cdc.rules`: key `<pipeline>:<version>`, value the
`quality` part of the spec that it was published with.

A row names in `_cdc_rules_version` the version that made it. Whoever has to know what that version did (reconciliation,
a re-masking) finds it here, also when the pipeline has other rules now, or was taken back.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing

from pydantic import ValidationError

from cdc_shared.errors import Fatal
from cdc_shared.kafka.compacted_topic import has_topic, publish_record, records, whole_topic_consumer
from cdc_shared.models.data_quality import QualitySpec

RULES_TOPIC = "cdc.rules"


class UnknownRules(Fatal):
    """No such version of a pipeline's rules was published."""


def store_rules(bootstrap_servers: str, pipeline: str, quality: QualitySpec, topic: str = RULES_TOPIC) -> None:
    """Keep the rules under their version; returns once Kafka has them. Raises `Transient` or `Fatal`."""
    publish_record(bootstrap_servers, topic, _key(pipeline, quality.version), quality.model_dump_json().encode())


def forget_rules(bootstrap_servers: str, pipeline: str, topic: str = RULES_TOPIC) -> None:
    """Take back every version: only when the pipeline's tables are gone too. Raises `Transient` or `Fatal`."""
    for version in read_versions(bootstrap_servers, pipeline, topic):
        publish_record(bootstrap_servers, topic, _key(pipeline, version), None)


def read_rules(bootstrap_servers: str, pipeline: str, version: int, topic: str = RULES_TOPIC) -> QualitySpec:
    """Return the `quality` part of the spec with which this version of the rules was published. 0 is no rules.

    Raises:
        UnknownRules: that version was never published.
    """
    if version == 0:
        return QualitySpec()
    versions = read_versions(bootstrap_servers, pipeline, topic)
    if version not in versions:
        known = ", ".join(map(str, sorted(versions))) or "none"
        raise UnknownRules(f"{topic} has no version {version} of the rules of pipeline {pipeline} (known: {known})")
    return versions[version]


def read_versions(bootstrap_servers: str, pipeline: str, topic: str = RULES_TOPIC) -> Mapping[int, QualitySpec]:
    """Return every version of a pipeline's rules but 0. Raises `Transient`, and `Fatal` when one cannot be read."""
    if not has_topic(bootstrap_servers, topic):
        return {}
    values = dict(_stored(bootstrap_servers, pipeline, topic))
    return {version: _decoded(pipeline, version, value, topic) for version, value in values.items() if value}


def first_rules(bootstrap_servers: str, pipeline: str, version: int, topic: str = RULES_TOPIC) -> QualitySpec:
    """Return the rules that were stored first under a version: of two who took the same number at once, theirs it is.

    To be asked right after `store_rules`, before compaction leaves the last ones only. Raises as `read_rules`.
    """
    first: bytes | None = None
    for stored, value in _stored(bootstrap_servers, pipeline, topic):
        if stored == version:
            first = (first or value) if value else None
    if first is None:
        raise UnknownRules(f"{topic} has no version {version} of the rules of pipeline {pipeline}")
    return _decoded(pipeline, version, first, topic)


def _stored(bootstrap_servers: str, pipeline: str, topic: str) -> Iterator[tuple[int, bytes | None]]:
    """Yield every record about a pipeline's versions, in their order."""
    with closing(whole_topic_consumer(bootstrap_servers)) as consumer:
        for message in records(consumer, topic):
            name, _, version = (message.key() or b"").decode(errors="replace").rpartition(":")
            if name == pipeline and version.isdecimal():
                yield int(version), message.value()


def _decoded(pipeline: str, version: int, value: bytes, topic: str) -> QualitySpec:
    try:
        return QualitySpec.model_validate_json(value)
    except ValidationError as error:
        raise Fatal(
            f"{topic}: version {version} of the rules of pipeline {pipeline} cannot be read ({error.error_count()} "
            "fields at fault): another release wrote it; run that one"
        ) from None


def _key(pipeline: str, version: int) -> bytes:
    return f"{pipeline}:{version}".encode()
