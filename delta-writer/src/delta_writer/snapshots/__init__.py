"""Snapshots of collections: how they go, what they make obsolete, and how one is asked for."""
