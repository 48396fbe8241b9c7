"""Records that could not be applied: why, where they are kept, and how they are tried again or given up."""
