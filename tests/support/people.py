"""Documents to be compared with their rows: what `table_damage` alters, and `_id`s of five BSON types."""

from __future__ import annotations

from typing import Any

from bson import Binary, DatetimeMS, ObjectId


def document_id(n: int) -> Any:
    """The n-th `_id`, of five BSON types in turn; no sub-document, which SecantusDB looks up by reading everything."""
    kinds = (
        n,
        f"text {n} é",
        ObjectId(f"{n:024x}"),
        DatetimeMS(1_700_000_000_000 + n),
        Binary(n.to_bytes(16, "big"), 4),
    )
    return kinds[n % len(kinds)]


def document(n: int, version: int = 0) -> dict[str, Any]:
    """The n-th document, with all that `table_damage` alters, and a number that one in 50 has as a text."""
    return {
        "_id": document_id(n),
        "text": f"text {n}.{version}",
        "sub": {"a": n, "b": f"b{n}", "deep": {"when": DatetimeMS(1_700_000_000_000 + n), "tags": ["x"] * (n % 3)}},
        "n": n,
        "email": f"person{n}@example.org",
        "mixed": [n, "x", {"p": n, "q": "y"}],
        "amount": n / 8,
        "odd": f"{n}" if n % 50 == 49 else n,
    }
