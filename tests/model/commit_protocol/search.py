"""Breadth-first search through the states of any small model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from commit_protocol.explorer import CounterExample
from commit_protocol.model import Violation

S = TypeVar("S", bound=Hashable)


def search(
    first: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    check: Callable[[S], None],
    is_finished: Callable[[S], bool],
) -> int:
    """Look at every state; return how many there are.

    Raises `CounterExample` when `check` raises `Violation` for one of them, or when from one of them no steps without a
    fault (a `!` in their name) lead to one that is finished.
    """
    numbers = {first: 0}
    states = [first]
    came_from = [(0, "")]
    back: list[list[int]] = [[]]

    def trace(number: int) -> list[str]:
        labels = []
        while number:
            number, label = came_from[number]
            labels.append(label)
        return labels[::-1]

    for here, state in enumerate(states):  # grows as it goes
        for label, after in steps(state):
            number = numbers.setdefault(after, len(states))
            if number == len(states):
                states.append(after)
                came_from.append((here, label))
                back.append([])
                try:
                    check(after)
                except Violation as violation:
                    raise CounterExample(violation, trace(number), len(states)) from None
            if "!" not in label:
                back[number].append(here)
    todo = [number for number, state in enumerate(states) if is_finished(state)]
    reaches = set(todo)
    while todo:
        new = [start for start in back[todo.pop()] if start not in reaches]
        reaches.update(new)
        todo += new
    if len(reaches) < len(states):
        stuck = next(number for number in range(len(states)) if number not in reaches)
        raise CounterExample(Violation("progress", "the work can no longer be finished"), trace(stuck), len(states))
    return len(states)
