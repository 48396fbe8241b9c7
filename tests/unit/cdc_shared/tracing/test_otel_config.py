"""Trace context in Kafka headers, and no SDK at all when tracing is off."""

import subprocess
import sys

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cdc_shared.tracing.otel_config import configure_tracing

pytestmark = pytest.mark.unit

PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def test_off_without_an_endpoint_it_touches_nothing() -> None:
    tracing = configure_tracing("writer", None)
    headers = [("a", b"1"), PARENT]
    assert tracing.enabled is False
    assert tracing.inject_headers(headers) is headers
    assert tracing.inject_headers() == []
    assert tracing.extract_context(headers) == context.get_current()
    with tracing.tracer.start_as_current_span("x") as span:
        assert not span.is_recording()
    tracing.shutdown()


def test_off_imports_no_sdk() -> None:
    code = (
        "import sys; from cdc_shared.tracing.otel_config import configure_tracing; configure_tracing('s', None); "
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'requests'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_context_travels_through_headers() -> None:
    sent_spans, applied_spans = InMemorySpanExporter(), InMemorySpanExporter()
    producer, consumer = configure_tracing("api", None, sent_spans), configure_tracing("writer", None, applied_spans)
    with producer.tracer.start_as_current_span("publish") as sent:
        headers = producer.inject_headers([("id", b"1"), PARENT])
    assert headers[0] == ("id", b"1")
    ids = sent.get_span_context()
    (name, value) = headers[1]
    assert len(headers) == 2, "the caller's traceparent is replaced"
    assert name == "traceparent"
    assert value.startswith(f"00-{ids.trace_id:032x}-{ids.span_id:016x}-".encode())
    with consumer.tracer.start_as_current_span("apply", context=consumer.extract_context(headers)):
        pass
    producer.shutdown()
    consumer.shutdown()
    (publish,), (apply,) = sent_spans.get_finished_spans(), applied_spans.get_finished_spans()
    assert apply.parent is not None
    assert apply.parent.span_id == publish.context.span_id
    assert apply.context.trace_id == publish.context.trace_id
    assert apply.resource.attributes["service.name"] == "writer"


def test_headers_given_are_not_changed_in_place() -> None:
    tracing = configure_tracing("x", None, InMemorySpanExporter())
    headers = [("id", b"1")]
    with tracing.tracer.start_as_current_span("s"):
        assert len(tracing.inject_headers(headers)) == 2
    assert headers == [("id", b"1")]
    tracing.shutdown()


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        [("traceparent", None)],
        [("traceparent", b"")],
        [("traceparent", b"\xff\xfe")],
        [("traceparent", b"00-0-0-0")],
    ],
)
def test_missing_or_broken_context_starts_a_new_trace(headers: list[tuple[str, bytes | None]] | None) -> None:
    tracing = configure_tracing("x", None, InMemorySpanExporter())
    extracted = tracing.extract_context(headers)
    assert not trace.get_current_span(extracted).get_span_context().is_valid
    tracing.shutdown()


def test_there_is_no_global_provider() -> None:
    before = trace.get_tracer_provider()
    configure_tracing("x", None, InMemorySpanExporter()).shutdown()
    assert trace.get_tracer_provider() is before
