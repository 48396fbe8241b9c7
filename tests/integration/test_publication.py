"""Rules published at the same moment, on the running stack's Kafka: no two of them get one number."""

import threading
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient
from stack_endpoints import Stack

from cdc_shared.errors import Transient
from cdc_shared.kafka.publication import publish
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.kafka.spec_topic import read_spec
from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.models.data_quality import QualitySpec, Redact

pytestmark = pytest.mark.integration

WAIT_S = 15.0
PUBLISHERS = 4


@pytest.fixture
def topics(stack: Stack) -> Iterator[tuple[str, str]]:
    """Names of this test's own for specs and rules; the topics are deleted afterwards."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    name = f"publication-test-{uuid.uuid4().hex[:12]}"
    names = (name, f"{name}-rules")
    yield names
    for done in admin.delete_topics(list(names)).values():
        done.result(WAIT_S)


def spec(path: str) -> PipelineSpec:
    quality = {"transformation": [{"rule": "redact", "path": path}]}
    source = {"connection": "env:X", "database": "d"}
    return PipelineSpec.model_validate({"name": "shop", "source": source, "quality": quality})


def masked(quality: QualitySpec) -> str:
    (rule,) = quality.transformation
    assert isinstance(rule, Redact)
    return rule.path


def test_of_those_that_publish_at_once_each_has_its_number_or_is_refused(stack: Stack, topics: tuple[str, str]) -> None:
    publish(stack.kafka, spec("/start"), *topics)
    published: dict[str, int] = {}
    refused: dict[str, str] = {}
    at_once = threading.Barrier(PUBLISHERS)

    def run(path: str) -> None:
        at_once.wait(WAIT_S)
        try:
            published[path] = publish(stack.kafka, spec(path), *topics).spec.quality.version
        except InvalidSpec as error:
            refused[path] = str(error)

    threads = [threading.Thread(target=run, args=(f"/field{number}",)) for number in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(published) + len(refused) == PUBLISHERS
    assert len(set(published.values())) == len(published)
    assert all("at the same moment" in each for each in refused.values())
    kept = {version: masked(quality) for version, quality in read_versions(stack.kafka, "shop", topics[1]).items()}
    assert kept == {1: "/start"} | {version: path for path, version in published.items()}
    in_force = read_spec(stack.kafka, "shop", topics[0]).quality
    assert masked(in_force) == kept[in_force.version]
    print(f"published: {published}, refused: {sorted(refused)}")


def test_who_may_not_publish_any_more_sends_nothing(stack: Stack, topics: tuple[str, str]) -> None:
    """A controller that was suspended while it read what it needs: another one has gone on meanwhile."""
    publish(stack.kafka, spec("/start"), *topics)

    def check() -> None:
        raise Transient("another process is the controller")

    with pytest.raises(Transient, match="another process"):
        publish(stack.kafka, spec("/late"), *topics, check=check)
    assert masked(read_spec(stack.kafka, "shop", topics[0]).quality) == "/start"
    assert list(read_versions(stack.kafka, "shop", topics[1])) == [1]
