"""JSON Pointers (RFC 6901): how a field is named in `_cdc_rescued`, in policies and in metrics."""

from typing import Final

ANY_ELEMENT: Final = "*"
"""In policies and rules, the token that stands for every element of an array."""


def pointer_to(parent: str, name: str) -> str:
    """The pointer of an object's member."""
    return f"{parent}/{pointer_token(name)}"


def pointer_token(name: str) -> str:
    """One reference token of a pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def pointer_names(pointer: str) -> list[str]:
    """The names on the way from the document to what the pointer points to; none for the document itself."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
