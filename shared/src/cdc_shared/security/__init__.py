"""Secrets: references to them, where they are kept, and the cryptography under it."""
