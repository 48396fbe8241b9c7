"""What makes the world as people want their pipelines to be."""
