"""Structured logging: one JSON line an event, secrets redacted."""
