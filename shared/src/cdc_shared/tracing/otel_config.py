"""OpenTelemetry tracing over OTLP/HTTP, off unless an endpoint is set; trace context rides in Kafka headers (W3C
`traceparent`).

    tracing = configure_tracing("delta-writer", settings.otlp_endpoint)
    with tracing.span("commit", message.headers()): ...
    producer.produce(topic, value, headers=tracing.inject_headers(headers))
    tracing.shutdown()

When it is off nothing of the SDK is imported, spans are no-ops and headers pass through untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cdc_shared.errors import shown

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

KafkaHeaders = list[tuple[str, bytes]]
Headers = Sequence[tuple[str, bytes | None]] | None
"""Of a consumed message."""

EXPORT_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Tracing:
    """Tracing of one process. Passed down like settings; there is no global provider."""

    enabled: bool
    tracer: trace.Tracer
    shutdown: Callable[[], None]
    """Sends what is queued and stops. Waits for a dead collector no longer than the export time-out."""

    @contextmanager
    def span(self, name: str, headers: Headers = None) -> Iterator[trace.Span]:
        """A span that goes on with the trace of a message's headers.

        An error that ends it is its status as `errors.shown`, not recorded with its message and its causes'.
        """
        at = self.extract_context(headers)
        with self.tracer.start_as_current_span(name, at, record_exception=False, set_status_on_exception=False) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(trace.StatusCode.ERROR, shown(error))
                raise

    def inject_headers(self, headers: KafkaHeaders | None = None) -> KafkaHeaders:
        """`headers` with the current span's `traceparent`, replacing one they carried; a new list when it is on."""
        if not self.enabled:
            return headers if headers is not None else []
        fields = _PROPAGATOR.fields
        carrier = [(name, value) for name, value in headers or () if name not in fields]
        _PROPAGATOR.inject(carrier, setter=_SETTER)
        return carrier

    def extract_context(self, headers: Headers) -> Context:
        """The context to start a consumer's span in; the current one when the headers carry none or a broken one."""
        if not self.enabled or not headers:
            return context.get_current()
        return _PROPAGATOR.extract(headers, getter=_GETTER)


def configure_tracing(service: str, otlp_endpoint: str | None, exporter: SpanExporter | None = None) -> Tracing:
    """Tracing to the collector at `otlp_endpoint` (base URL, `/v1/traces` is added), or off when it is None.

    `exporter` takes the place of the OTLP one, for tests. An unreachable collector costs spans, never an event.
    """
    if otlp_endpoint is None and exporter is None:
        return Tracing(enabled=False, tracer=trace.NoOpTracer(), shutdown=_nothing)

    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or _otlp_exporter(otlp_endpoint or "")))
    return Tracing(enabled=True, tracer=provider.get_tracer(service), shutdown=provider.shutdown)


def _otlp_exporter(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    url = endpoint.rstrip("/")
    return OTLPSpanExporter(url if url.endswith("/v1/traces") else f"{url}/v1/traces", timeout=EXPORT_TIMEOUT_S)


def _nothing() -> None:
    pass


class _HeaderSetter(Setter[KafkaHeaders]):
    def set(self, carrier: KafkaHeaders, key: str, value: str) -> None:
        carrier.append((key, value.encode("ascii")))


class _HeaderGetter(Getter[Sequence[tuple[str, bytes | None]]]):
    def get(self, carrier: Sequence[tuple[str, bytes | None]], key: str) -> list[str] | None:
        found = [value.decode("ascii", "replace") for name, value in carrier if name.lower() == key and value]
        return found or None

    def keys(self, carrier: Sequence[tuple[str, bytes | None]]) -> list[str]:
        return [name for name, _ in carrier]


_PROPAGATOR = TraceContextTextMapPropagator()
_SETTER = _HeaderSetter()
_GETTER = _HeaderGetter()
