"""The connector's configuration: names matched exactly in every dialect, and credentials apart from the text."""

import json
import random
import re
from pathlib import Path

import pytest

from cdc_shared.connect.connector_config import (
    collection_pattern,
    collection_regex,
    database_pattern,
    load_template,
    render_connector_config,
)
from cdc_shared.errors import Fatal
from cdc_shared.models.common import SENTINEL_COLLECTION, PipelineSpec, SourceSpec

pytestmark = pytest.mark.unit

CONNECTION = {"mongodb.connection.string": "${file:/secrets/crm.1.properties:mongodb.connection.string}"}
TEMPLATE = Path(__file__).parents[4] / "config" / "kafka-connect" / "debezium-mongodb.json"


def source(**fields: object) -> SourceSpec:
    return SourceSpec.model_validate({"connection": "env:X", "database": "shop"} | fields)


def captured(spec: SourceSpec, namespace: str) -> bool:
    """As Debezium decides twice: in Java each item of the list as a whole, in MongoDB the joined list as a search.

    Python's `re` reads these patterns as Java and PCRE do; Debezium 3.6.1's Predicates class agrees on the shapes.
    """
    items = collection_pattern(spec).split(",")
    in_java = any(re.fullmatch(item, namespace, re.IGNORECASE) for item in items)
    in_mongodb = re.search("|".join(items), namespace, re.IGNORECASE) is not None
    assert in_java == in_mongodb, namespace
    return in_java


def test_a_whole_database_is_that_database_only() -> None:
    spec = source()
    assert captured(spec, "shop.orders")
    assert captured(spec, "shop.a.b")
    for other in ("shop2.orders", "myshop.orders", "SHOP.orders", "shopxorders"):
        assert not captured(spec, other)


def test_included_names_are_exact() -> None:
    spec = source(include_collections=("orders", "a.b", "x+y", "with space", "com,ma", "(?i)"))
    for name in spec.include_collections:
        assert captured(spec, f"shop.{name}")
    for name in ("orders2", "Orders", "order", "aXb", "xxy", "com", "ma", "", "ORDERS"):
        assert not captured(spec, f"shop.{name}")
    assert not captured(spec, "xshop.orders")


def test_excluded_names_are_exact_and_all_others_are_captured() -> None:
    spec = source(exclude_collections=("orders", "com,ma"))
    assert not captured(spec, "shop.orders")
    assert not captured(spec, "shop.com,ma")
    for name in ("orders2", "Orders", "order", "com", "orders.items"):
        assert captured(spec, f"shop.{name}")
    assert not captured(spec, "other.customers")


def test_the_platforms_own_collection_is_always_captured() -> None:
    for spec in (source(), source(include_collections=("orders",)), source(exclude_collections=("orders",))):
        assert captured(spec, f"shop.{SENTINEL_COLLECTION}")
        assert not captured(spec, f"other.{SENTINEL_COLLECTION}")


def test_random_names_match_themselves_and_nothing_else(rng: random.Random) -> None:
    alphabet = "ab.,|()[]{}^*+?\\-_ /&#~%@!<>=:;'\"é中"
    names = sorted({"".join(rng.choices(alphabet, k=rng.randint(1, 6))) for _ in range(120)})
    for name in names:
        spec = source(include_collections=(name,))
        assert [n for n in names if captured(spec, f"shop.{n}")] == [name]


def test_the_database_pattern_is_exact() -> None:
    pattern = database_pattern(source(database="my-db"))
    assert re.search(pattern, "my-db", re.IGNORECASE)
    for other in ("my-db2", "amy-db", "MY-DB", "myxdb"):
        assert not re.search(pattern, other, re.IGNORECASE)


def test_the_template_renders_for_a_pipeline() -> None:
    spec = PipelineSpec(name="crm", source=source(snapshot_mode="when_needed"), topic_partitions=3)
    config = render_connector_config(load_template(TEMPLATE), spec, CONNECTION, "kafka:9092", 2)
    assert all(isinstance(value, str) and "{{" not in value for value in config.values())
    expected = {
        "connector.class": "io.debezium.connector.mongodb.MongoDbConnector",
        "topic.prefix": "crm",
        **CONNECTION,
        "snapshot.mode": "when_needed",
        "capture.mode": "change_streams_update_full",
        "exactly.once.support": "required",
        "extended.headers.enabled": "false",
        "signal.enabled.channels": "kafka",
        "signal.kafka.topic": "cdc.signals.crm",
        "signal.kafka.bootstrap.servers": "kafka:9092",
        "notification.enabled.channels": "sink",
        "notification.sink.topic.name": "cdc.notifications.crm",
        "topic.creation.default.partitions": "3",
        "topic.creation.default.replication.factor": "2",
        "topic.creation.default.cleanup.policy": "delete",
        "topic.creation.default.message.timestamp.type": "CreateTime",
        "topic.creation.default.retention.ms": str(7 * 24 * 3600 * 1000),
        "topic.creation.sentinel.include": r"crm\.shop\.cdc_heartbeat",
        "topic.creation.sentinel.partitions": "1",
    }
    assert {key: config.get(key) for key in expected} == expected
    assert "signal.data.collection" not in config


def test_what_the_connector_captures_for_tables() -> None:
    only, but = source(include_collections=("a",)), source(exclude_collections=("a",))
    assert [each.captures("a") for each in (only, but, source())] == [True, False, True]
    assert [each.captures("b") for each in (only, but, source())] == [False, True, True]


def test_a_signal_names_exactly_one_collection() -> None:
    assert re.fullmatch(collection_regex(source(), "a.b,c+"), "shop.a.b,c+")
    assert not re.fullmatch(collection_regex(source(), "a.b"), "shop.axb")
    assert "," not in collection_regex(source(), "a,b")


def test_every_placeholder_of_the_template_is_documented() -> None:
    readme = (TEMPLATE.parent / "README.md").read_text(encoding="utf-8")
    placeholders = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", TEMPLATE.read_text(encoding="utf-8")))
    assert placeholders
    assert all(f"`{name}`" in readme for name in placeholders)


def test_an_unknown_placeholder_names_itself_and_its_key() -> None:
    with pytest.raises(Fatal, match=r"topic\.prefix has the unknown placeholder \{\{pipeline\}\}"):
        render_connector_config(
            {"topic.prefix": "{{pipeline}}"}, PipelineSpec(name="a", source=source()), CONNECTION, "k:1"
        )


def test_values_are_not_read_as_placeholders() -> None:
    spec = PipelineSpec(name="a", source=source(include_collections=("{{pipeline_name}}",)))
    config = render_connector_config({"c": "{{collection_pattern}}"}, spec, CONNECTION, "k:1")
    assert config["c"] == collection_pattern(spec.source)


@pytest.mark.parametrize(
    ("content", "part"), [("{", "not valid JSON"), ("[]", "one JSON object"), ('{"a": 1}', "all strings")]
)
def test_a_broken_template_is_named(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(Fatal, match=rf"t\.json.*{part}"):
        load_template(path)
    with pytest.raises(Fatal, match="cannot be read"):
        load_template(tmp_path / "missing.json")


def test_the_largest_record_fits_through_every_part() -> None:
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    largest = int(template["producer.override.max.request.size"])
    assert largest >= 5 * 16 * 1024 * 1024, "a document of 16 MiB, written as JSON inside JSON"
    assert largest == int(template["topic.creation.default.max.message.bytes"])
    assert largest <= int(template["producer.override.buffer.memory"])
    assert largest < 100_000_000 - 512, "librdkafka's receive.message.max.bytes"
