"""OpenTelemetry tracing, off unless an OTLP endpoint is set."""
