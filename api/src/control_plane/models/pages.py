"""Lists are given in pages, by a cursor that stays right while entries come and go."""

import base64
import binascii
import json
from typing import Annotated, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from control_plane.problems import Problem

MAX_LIMIT: Final = 200
MAX_CURSOR_CHARS: Final = 1024

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="entries a page")]
Cursor = Annotated[
    str | None, Query(alias="cursor", max_length=MAX_CURSOR_CHARS, description="`next` of the page before")
]


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    items: list[T]
    next: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


def encode_cursor(position: list[str | int]) -> str:
    """A cursor for the place behind this position, which is what the list is sorted by."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: type) -> list[str | int] | None:
    """The position that a cursor holds, of values of these kinds. Raises `Problem` 422 for any other text."""
    if cursor is None:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        position = None
    if not isinstance(position, list) or [type(each) for each in position] != list(kinds):
        raise Problem(422, "invalid_cursor", "cursor is not one that a page gave as its `next`; leave it out to start")
    return position
