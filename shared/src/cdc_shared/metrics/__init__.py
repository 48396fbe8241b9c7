"""Prometheus metrics, each defined once."""
