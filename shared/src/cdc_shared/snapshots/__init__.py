"""Snapshots of the source: what the connector tells of them, and what a table has of them."""
