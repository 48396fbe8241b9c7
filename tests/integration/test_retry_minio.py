"""A store that fails for a moment: the writer tries again, and the table is as if nothing had been.

The whole outage, under load, is in `tests/faults/test_store_outage.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from stack_endpoints import Stack
from tcp_proxy import TcpProxy, is_log_entry
from topic_pipeline import TopicPipeline
from waiting import wait_until

pytestmark = pytest.mark.integration

TIMEOUT_S = 30.0
MORE_THAN_ONE_REQUEST_TRIES = 6
"""The store's client tries a request four times by itself; what fails after that is the pipeline's to try again."""


@pytest.fixture
def proxy(stack: Stack) -> Iterator[TcpProxy]:
    with TcpProxy(stack.s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def pipeline(new_topic_pipeline: Callable[..., TopicPipeline], proxy: TcpProxy) -> TopicPipeline:
    """A pipeline, not yet started, whose writer is to reach the store through the proxy."""
    pipeline = new_topic_pipeline(start=False)
    pipeline.items.make_topic()
    pipeline.publish()
    return pipeline


def start(pipeline: TopicPipeline, proxy: TcpProxy, *, ready: bool = True) -> None:
    pipeline.start_writer({"S3_ENDPOINT": proxy.url}, ready=ready)


def test_a_store_that_asks_to_slow_down_is_asked_again(pipeline: TopicPipeline, proxy: TcpProxy) -> None:
    start(pipeline, proxy)
    for n, refused_times in enumerate((1, MORE_THAN_ONE_REQUEST_TRIES)):
        refused = proxy.refuse(is_log_entry, refused_times)
        pipeline.items.insert({"_id": n})
        pipeline.items.await_equal()
        assert all(each.happened.is_set() for each in refused)
    assert pipeline.writer.metric("cdc_retries_total", pipeline=pipeline.name, operation="commit") >= 1
    assert pipeline.writer.metric("cdc_dead_letters_total", pipeline=pipeline.name) == 0


def test_broken_connections_are_waited_out(pipeline: TopicPipeline, proxy: TcpProxy) -> None:
    start(pipeline, proxy)
    items, writer = pipeline.items, pipeline.writer
    items.insert(*({"_id": n, "v": 0} for n in range(100)))
    items.await_equal()
    proxy.cut()
    items.update(*({"_id": n, "v": 1} for n in range(50)))
    reason = writer.wait_state(pipeline.name, "retrying", TIMEOUT_S)
    assert items.url in str(reason)
    assert writer.get("/ready").status_code == 503
    items.delete(*range(10))
    proxy.restore()
    items.await_equal(TIMEOUT_S)
    writer.wait_state(pipeline.name, "running", TIMEOUT_S)
    assert writer.get("/ready").is_success


def test_a_writer_that_starts_before_the_store_waits_for_it(pipeline: TopicPipeline, proxy: TcpProxy) -> None:
    pipeline.items.insert(*({"_id": n} for n in range(10)))
    proxy.cut()
    start(pipeline, proxy, ready=False)
    pipeline.writer.wait_state(pipeline.name, "retrying", TIMEOUT_S)
    proxy.restore()
    pipeline.items.await_equal(TIMEOUT_S)


def test_a_writer_can_be_stopped_while_the_store_is_away(pipeline: TopicPipeline, proxy: TcpProxy) -> None:
    start(pipeline, proxy)
    pipeline.items.insert({"_id": 1})
    pipeline.items.await_equal()
    proxy.cut()
    pipeline.items.insert({"_id": 2})
    pipeline.writer.wait_state(pipeline.name, "retrying", TIMEOUT_S)
    pipeline.writer.stop()  # ends in time and with status 0
    proxy.restore()
    start(pipeline, proxy)
    pipeline.items.await_equal(TIMEOUT_S)
    wait_until(lambda: pipeline.writer.get("/ready").is_success, TIMEOUT_S, "the writer is ready")
