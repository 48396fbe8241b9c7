"""Questions to the Delta tables."""
