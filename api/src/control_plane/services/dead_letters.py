"""The dead letters of one pipeline: listed, shown, tried again, given up. Everything here blocks.

A letter of another pipeline is not there: who is limited to some pipelines sees nothing of the others.
"""

from collections.abc import Callable
from datetime import datetime

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.dead_letters.letter import LetterFilter, NoLetter, Place
from control_plane.models.dead_letters import (
    MAX_LETTERS,
    DiscardResult,
    LetterContent,
    LettersMeant,
    LetterView,
    ReplayResult,
)
from control_plane.models.pages import Page, encode_cursor
from control_plane.problems import Problem


class PipelineLetters:
    """The letters of every pipeline, one pipeline at a time."""

    def __init__(self, open_letters: Callable[[], DeadLetters]) -> None:
        """`open_letters` gives each call its own, since they are not thread-safe."""
        self._open = open_letters

    def page(self, which: LetterFilter, limit: int, after: int) -> Page[LetterView]:
        """Up to `limit` letters behind `after`, oldest first."""
        found = self._open().list_letters(which, limit, after)
        items = [LetterView.of(each.letter, each.written_ms) for each in found.letters]
        return Page(items=items, next=None if found.next_after is None else encode_cursor([found.next_after]))

    def show(self, pipeline: str, name: str, *, reveal: bool) -> LetterContent:
        """One letter and what is in it. Raises `Problem` 404."""
        try:
            shown = self._open().show(Place.parse(name), reveal=reveal)
        except NoLetter:
            raise _not_there(name) from None
        if shown.letter.pipeline != pipeline:
            raise _not_there(name)
        return LetterContent.of_shown(shown)

    def replay(self, pipeline: str, meant: LettersMeant) -> ReplayResult:
        """Try letters again. Raises `Problem` 404 when one that is named is not there: then nothing was done."""
        return ReplayResult.of(self._open().replay(self._which(pipeline, meant)))

    def discard(self, pipeline: str, meant: LettersMeant) -> DiscardResult:
        """Give letters up for good. Raises as `replay` does."""
        return DiscardResult(discarded=self._open().discard(self._which(pipeline, meant)))

    def _which(self, pipeline: str, meant: LettersMeant) -> LetterFilter:
        if not meant.letters:
            return letter_filter(pipeline, meant.collection, meant.code, meant.rule, meant.since, meant.until)
        places = frozenset(map(Place.parse, meant.letters))
        which = LetterFilter(pipeline=pipeline, places=places)
        there = {each.letter.place for each in self._open().list_letters(which, MAX_LETTERS).letters}
        if missing := sorted(places - there):
            raise _not_there(", ".join(map(str, missing)))
        return which


def letter_filter(
    pipeline: str,
    collection: str | None,
    code: str | None,
    rule: str | None,
    since: datetime | None,
    until: datetime | None,
) -> LetterFilter:
    """The letters of a pipeline that all given parts fit."""
    return LetterFilter(
        pipeline=pipeline,
        collection=collection,
        code=None if code is None else str(code),
        rule=rule,
        since_ms=None if since is None else int(since.timestamp() * 1000),
        until_ms=None if until is None else int(until.timestamp() * 1000),
    )


def _not_there(names: str) -> Problem:
    return Problem(404, "no_dead_letter", f"this pipeline has no dead letter {names}; it may be done with: list them")
