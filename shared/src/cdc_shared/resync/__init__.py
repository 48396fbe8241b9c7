"""Making tables whole again: new snapshots, of a pipeline or of collections."""
