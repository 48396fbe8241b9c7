"""Removing a pipeline takes its own topics and nobody else's."""

import pytest

from local_stack.undeployment import pipelines, topics_of

pytestmark = pytest.mark.unit

TOPICS = [
    *("cdc.signals.shop", "cdc.signals.cdc", "cdc.pipelines", "cdc.status", "cdc.dead-letters", "_connect_offsets"),
    *("shop.shop.orders", "shop.shop.customers", "shop2.shop.orders", "shop-eu.shop.orders", "cdc.shop.orders"),
    *("__debezium-heartbeat.shop", "__debezium-heartbeat.shop2"),
    *("cdc.notifications.shop", "cdc.notifications.cdc", "cdc.notifications.shop2"),
]


def test_a_pipelines_topics_are_its_own_with_the_signals_last() -> None:
    assert topics_of("shop", TOPICS) == [
        *("__debezium-heartbeat.shop", "cdc.notifications.shop", "shop.shop.customers", "shop.shop.orders"),
        "cdc.signals.shop",
    ]


def test_a_pipeline_that_is_named_as_the_platforms_topics_leaves_those() -> None:
    assert topics_of("cdc", TOPICS) == ["cdc.notifications.cdc", "cdc.shop.orders", "cdc.signals.cdc"]


def test_a_pipeline_whose_removal_was_interrupted_is_still_known() -> None:
    assert pipelines(TOPICS, ["trial", "shop"]) == ["cdc", "shop", "trial"]
