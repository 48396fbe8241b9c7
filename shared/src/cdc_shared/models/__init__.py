"""Models that several services exchange."""
