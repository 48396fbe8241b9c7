"""What takes several steps: each kind of operation."""
