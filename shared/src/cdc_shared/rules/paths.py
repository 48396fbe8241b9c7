"""Paths of rules, and the places of a document that they reach.

A path is a JSON Pointer in MongoDB's names. `*` stands for every element of an array. Arrays on the way are gone
through with or without it, and on what is no array it stands for the value itself: a rule, a mask above all, still
holds when an object becomes an array of objects or the other way round. Only as the last token does `*` make a
difference: `/tags` is the array, `/tags/*` each element. Anything else on the way that is no object ends the path:
nothing is reached, but a mask fails closed and reaches the value that ends its path. A member that an object does not
have is missing, to masks as well.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from cdc_shared.documents.bson_values import DuplicateKeys

EVERY: Final = "*"

Tokens = tuple[str, ...]
Pairs = list[tuple[str, Any]]
"""Names and values of an object, in order; a name may come twice."""


def tokens_of(path: str) -> Tokens:
    """The tokens of a path, or of a pointer in `_cdc_rescued`."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:])


def path_of(tokens: Iterable[str]) -> str:
    """The inverse of `tokens_of`."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def names_of(tokens: Tokens) -> Tokens:
    """The names alone: what a pointer, which goes into no array, can be compared with."""
    return tuple(token for token in tokens if token != EVERY)


def begins_with(tokens: Tokens, start: Tokens) -> bool:
    """Whether a path is at or below another."""
    return tokens[: len(start)] == start


def touch(one: Tokens, other: Tokens) -> bool:
    """Whether one path is at, above or below the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def edit_values(value: Any, tokens: Tokens, edit: Callable[[Any], Any], *, fail_closed: bool = False) -> Any:
    """`value` with `edit` applied wherever the path reaches something that is not null. A name that comes twice is
    reached each time. With `fail_closed`, as masks have it, a value that ends the path early is reached too. `value`
    itself is left as it is.
    """
    if not tokens:
        return None if value is None else edit(value)

    def edited(below: Any, left: Tokens) -> Any:
        return edit_values(below, left, edit, fail_closed=fail_closed)

    token = tokens[0]
    if type(value) is list:
        below = tokens[1:] if token == EVERY else tokens
        return [edited(element, below) for element in value]
    if token == EVERY:
        return edited(value, tokens[1:])
    if type(value) is dict:
        return value | {token: edited(value[token], tokens[1:])} if token in value else value
    if type(value) is DuplicateKeys:
        below = tokens[1:]
        return DuplicateKeys(
            tuple((name, edited(each, below) if name == token else each) for name, each in value.pairs)
        )
    return edit(value) if fail_closed and value is not None else value


def edit_objects(value: Any, tokens: Tokens, edit: Callable[[Pairs], Pairs]) -> Any:
    """`value` with the members of every object that the path reaches replaced by what `edit` makes of them."""

    def edit_object(reached: Any) -> Any:
        if type(reached) is list:
            return [edit_object(element) for element in reached]
        if type(reached) is dict:
            return _object(edit(list(reached.items())))
        return _object(edit(list(reached.pairs))) if type(reached) is DuplicateKeys else reached

    return edit_values(value, tokens, edit_object)


def _object(pairs: Pairs) -> dict[str, Any] | DuplicateKeys:
    document = dict(pairs)
    return document if len(document) == len(pairs) else DuplicateKeys(tuple(pairs))
