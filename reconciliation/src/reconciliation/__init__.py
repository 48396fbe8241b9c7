"""Proves that Delta tables equal their MongoDB collections, and repairs them when they do not."""
