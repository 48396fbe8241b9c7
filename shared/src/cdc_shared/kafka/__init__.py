"""Kafka topics of the platform."""
