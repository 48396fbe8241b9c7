"""The Debezium connector's configuration for one pipeline: the template, completed from the spec."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cdc_shared.errors import Fatal
from cdc_shared.kafka.topics import notification_topic, sentinel_topic, signal_topic
from cdc_shared.models.common import SENTINEL_COLLECTION, PipelineSpec, SourceSpec

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def load_template(path: Path) -> dict[str, str]:
    """The template, a flat JSON object of strings. Raises `Fatal` that names the file."""
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Fatal(f"connector template {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Fatal(f"connector template {path} is not valid JSON: {error}") from error
    if not isinstance(template, dict) or not all(isinstance(value, str) for value in template.values()):
        raise Fatal(f"connector template {path} must be one JSON object whose values are all strings")
    return template


def render_connector_config(
    template: Mapping[str, str],
    spec: PipelineSpec,
    connection: Mapping[str, str],
    bootstrap_servers: str,
    replication_factor: int = 1,
) -> dict[str, str]:
    """What to PUT to Connect as the configuration of connector `spec.name`.

    `connection` is what `ConnectorSecrets.put` gives for the secret that `spec.source.connection` refers to,
    `bootstrap_servers` the brokers as Connect reaches them. The result holds no secret. Raises `Fatal` for an unknown
    placeholder.
    """
    values = {
        "pipeline_name": spec.name,
        "database_pattern": database_pattern(spec.source),
        "collection_pattern": collection_pattern(spec.source),
        "capture_mode": spec.source.capture_mode,
        "snapshot_mode": spec.source.snapshot_mode,
        "topic_partitions": str(spec.topic_partitions),
        "replication_factor": str(replication_factor),
        "signal_topic": signal_topic(spec.name),
        "notification_topic": notification_topic(spec.name),
        "sentinel_topic_pattern": re.escape(sentinel_topic(spec.name, spec.source.database)),
        "bootstrap_servers": bootstrap_servers,
    }
    return {key: _filled(key, text, values) for key, text in template.items()} | dict(connection)


def database_pattern(source: SourceSpec) -> str:
    """A regular expression that matches the spec's database and no other."""
    return _exactly(_literal(source.database))


def collection_pattern(source: SourceSpec) -> str:
    """A value for `collection.include.list` that matches exactly the captured `database.collection` names.

    The platform's own `cdc_heartbeat` is always among them.

    Debezium evaluates it twice: in Java against the whole name, and in MongoDB (PCRE) as an unanchored search; both
    ignore case, and both split the list at commas. So each pattern is anchored, turns case-sensitivity on, and holds no
    comma. Exclusion is written as inclusion, because the server-side form of `collection.exclude.list` excludes
    nothing.
    """
    database = _literal(source.database) + r"\."
    if source.include_collections:
        names = (*source.include_collections, SENTINEL_COLLECTION)
        return ",".join(_exactly(database + _literal(name)) for name in names)
    if source.exclude_collections:
        excluded = "|".join(_literal(name) for name in source.exclude_collections)
        return _exactly(f"{database}(?!(?:{excluded})$).*")
    return _exactly(database + ".*")


def collection_regex(source: SourceSpec, collection: str) -> str:
    """A regular expression that matches one collection's `database.collection`, as Debezium's signals take it."""
    return rf"{_literal(source.database)}\.{_literal(collection)}"


def _filled(key: str, text: str, values: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise Fatal(
                f"connector template: {key} has the unknown placeholder {match[0]} (known: {', '.join(values)})"
            )
        return values[match[1]]

    return _PLACEHOLDER.sub(value_of, text)


def _literal(name: str) -> str:
    """`name` escaped for Java, PCRE and Python regular expressions alike, without a comma."""
    return re.escape(name).replace(",", r"\x2c")


def _exactly(pattern: str) -> str:
    return f"^(?-i:{pattern})$"
