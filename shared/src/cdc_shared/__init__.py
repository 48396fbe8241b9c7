"""What every service of the CDC platform shares."""
