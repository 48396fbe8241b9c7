"""Consumes Debezium change events from Kafka and upserts them into Delta Lake tables, exactly once."""
