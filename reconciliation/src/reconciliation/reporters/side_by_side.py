"""A document beside its row, field by field: what differs is marked, what does not is shortened."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cdc_shared.documents.pointers import pointer_to
from reconciliation.reporters.visible_text import shortened, visible

if TYPE_CHECKING:
    from reconciliation.reconciler.difference import Difference

VALUE_LENGTH: Final = 400
"""Characters of a value that differs."""
PLAIN_LENGTH: Final = 120
"""And of one that does not."""
MARKED_LINES: Final = 40
PLAIN_LINES: Final = 12
PARSED_LENGTH: Final = 256 * 1024
"""Longer documents are shown as the text that they are."""
CONTEXT_LENGTH: Final = 40
"""Characters before the first place where two long values differ."""


class _Nothing:
    """No value, which is not null."""


_NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True)
class Line:
    """One field. `left`, `right`: its text in MongoDB and in the table, None where it is not there.

    `how` it differs; None when it does not.
    """

    pointer: str
    left: str | None
    right: str | None
    how: str | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What is shown of one difference: fields that differ first. `left_out`: how many fields are not shown."""

    lines: Sequence[Line]
    left_out: int


def side_by_side(difference: "Difference") -> SideBySide | None:
    """Return what is to be shown; None when there is neither a document nor a row."""
    if difference.document is None and difference.row is None:
        return None
    marks = {each.pointer: str(each.how) for each in difference.fields}
    left, right = _parsed(difference.document), _parsed(difference.row)
    lines = list(_lines("", left, right, marks))
    seen = {line.pointer for line in lines}
    lines += [Line(pointer, None, None, how) for pointer, how in marks.items() if pointer not in seen]
    marked = [line for line in lines if line.how is not None]
    plain = [line for line in lines if line.how is None]
    shown = [*marked[:MARKED_LINES], *plain[:PLAIN_LINES]]
    return SideBySide([_visible(line) for line in shown], len(lines) - len(shown))


def _parsed(text: str | None) -> Any:
    if text is None:
        return _NOTHING
    if len(text) > PARSED_LENGTH:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lines(pointer: str, left: Any, right: Any, marks: Mapping[str, str]) -> Iterator[Line]:
    """Yield the fields below the pointer: members of the document, and deeper where something marked lies deeper."""
    goes_deeper = not pointer or any(mark.startswith(f"{pointer}/") for mark in marks)
    sides = [_members(side) for side in (left, right)]
    if pointer not in marks and goes_deeper and any(side is not None for side in sides):
        first, second = (side or {} for side in sides)
        for name in dict.fromkeys([*first, *second]):
            below = pointer_to(pointer, name)
            yield from _lines(below, first.get(name, _NOTHING), second.get(name, _NOTHING), marks)
    else:
        yield Line(pointer, *_texts(left, right), marks.get(pointer))


def _members(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return {str(index): each for index, each in enumerate(value)}
    return None


def _texts(left: Any, right: Any) -> tuple[str | None, str | None]:
    first, second = (None if side is _NOTHING else _text(side) for side in (left, right))
    if first is None or second is None or max(len(first), len(second)) <= VALUE_LENGTH:
        return first, second
    skipped = _alike(first, second) - CONTEXT_LENGTH
    if skipped <= 0 or first == second:
        return first, second
    told = f"({skipped:,} characters alike) …"
    return told + first[skipped:], told + second[skipped:]


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    alike, beyond = 0, min(len(first), len(second)) + 1
    while beyond - alike > 1:  # both begin with `alike` of them, and not with `beyond`
        middle = (alike + beyond) // 2
        if first[alike:middle] == second[alike:middle]:
            alike = middle
        else:
            beyond = middle
    return alike


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) > PARSED_LENGTH else json.dumps(value, ensure_ascii=False)


def _visible(line: Line) -> Line:
    length = VALUE_LENGTH if line.how else PLAIN_LENGTH
    left, right = (None if side is None else visible(shortened(side, length)) for side in (line.left, line.right))
    return Line(visible(shortened(line.pointer, PLAIN_LENGTH)), left, right, line.how)
