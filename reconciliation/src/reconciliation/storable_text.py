"""Text of documents as Postgres can hold it."""

from collections.abc import Mapping
from typing import Any


def storable(text: str) -> str:
    """Return the text with NUL and halves of surrogate pairs, which documents may hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\u0000")


def storable_value(value: Any) -> Any:
    """As `storable`, for every text in a JSON value."""
    match value:
        case str():
            return storable(value)
        case Mapping():
            return {storable(str(key)): storable_value(each) for key, each in value.items()}
        case list() | tuple():
            return [storable_value(each) for each in value]
        case _:
            return value
