"""Numbers with their nouns."""


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`; for nouns that take an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
