"""What of Kafka Connect is a pipeline's: a connector that only has its name is nobody's business."""

from collections.abc import Mapping
from typing import Any, Self, cast

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView
from cdc_shared.models.common import PipelineSpec
from control_plane.controller.kafka_connect import KafkaConnect
from control_plane.controller.operations.delete import DeleteOperation
from control_plane.controller.operations.operation import OperationContext, Progress

pytestmark = pytest.mark.unit

SPEC = PipelineSpec.model_validate({"name": "shop", "source": {"connection": "env:X", "database": "d"}})


class StrangeConnector:
    """A Connect whose connector `shop` belongs to another team, and which may only be looked at."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = config

    def connectors(self) -> dict[str, ConnectorView]:
        return {"shop": ConnectorView(self._config, ConnectorStatus("shop", "RUNNING", "", ()))}

    def is_somebody_elses(self, name: str) -> bool:
        return name == "shop"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("config", "is_ours"), [({"topic.prefix": "shop"}, True), ({"topic.prefix": "theirs"}, False), ({}, False)]
)
def test_only_ones_own_connector_is_seen(config: Mapping[str, str], is_ours: bool) -> None:
    connect: Any = StrangeConnector(config)
    view = KafkaConnect(lambda: connect, connect, lambda: 0.0).view("shop")
    assert (view is not None) is is_ours


def test_a_deletion_leaves_the_connector_of_somebody_else_alone() -> None:
    connect: Any = StrangeConnector({})
    nothing = cast(Any, None)
    operation = DeleteOperation(lambda: connect, nothing, nothing, nothing)
    for step, following in (("offsets", "connector"), ("connector", "spec")):
        result = operation.step(OperationContext(SPEC, "stopped", {}, {"step": step, "notes": []}))
        assert isinstance(result, Progress)
        assert result.memory["step"] == following
