"""Times at which things are due."""
