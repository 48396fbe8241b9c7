"""Kafka Connect and its Debezium connector."""
