"""`/api/v1/pipelines/{name}/dead-letters`: records that could not be applied."""

from functools import partial
from typing import Annotated

from fastapi import Path, Query
from pydantic import AwareDatetime, StringConstraints

from cdc_shared.dead_letters.rejection import ReasonCode
from control_plane.dependencies import ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.dead_letters import (
    DiscardResult,
    LetterContent,
    LetterName,
    LettersMeant,
    LetterView,
    ReplayResult,
)
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor
from control_plane.permissions import Permission
from control_plane.routers.pipeline_requests import Name
from control_plane.routes import guarded_router
from control_plane.services.dead_letters import letter_filter

router = guarded_router(prefix="/api/v1/pipelines/{name}/dead-letters", tags=["dead letters"])

Letter = Annotated[LetterName, Path(description="`topic:partition:offset` of the record that was rejected")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]


@router.get("", dependencies=[guard(Permission.DEAD_LETTERS_READ, Action.DEAD_LETTERS_LIST)])
async def list_dead_letters(
    name: Name,
    platform: ThePlatform,
    limit: Limit = 50,
    cursor: Cursor = None,
    collection: Text | None = None,
    code: ReasonCode | None = None,
    rule: Text | None = None,
    since: Annotated[AwareDatetime | None, Query(description="written at or after this time")] = None,
    until: Annotated[AwareDatetime | None, Query(description="written before this time")] = None,
) -> Page[LetterView]:
    """The pipeline's dead letters, oldest first, without what is in them."""
    which = letter_filter(name, collection, code, rule, since, until)
    position = decode_cursor(cursor, int)
    after = -1 if position is None else int(position[0])
    return await platform.blocking.run(partial(platform.dead_letters.page, which, limit, after))


@router.get("/{letter}", dependencies=[guard(Permission.DEAD_LETTERS_READ, Action.DEAD_LETTERS_SHOW)])
async def show_dead_letter(name: Name, letter: Letter, platform: ThePlatform) -> LetterContent:
    """One letter and the structure of what is in it: each value is replaced by the name of its type."""
    return await platform.blocking.run(partial(platform.dead_letters.show, name, letter, reveal=False))


@router.get("/{letter}/revealed", dependencies=[guard(Permission.DEAD_LETTERS_REVEAL, Action.DEAD_LETTERS_REVEAL)])
async def reveal_dead_letter(name: Name, letter: Letter, platform: ThePlatform) -> LetterContent:
    """One letter with the values in it, as MongoDB had them: before any mask."""
    return await platform.blocking.run(partial(platform.dead_letters.show, name, letter, reveal=True))


@router.post("/replay", dependencies=[guard(Permission.DEAD_LETTERS_REPLAY, Action.DEAD_LETTERS_REPLAY)])
async def replay_dead_letters(name: Name, meant: LettersMeant, platform: ThePlatform) -> ReplayResult:
    """Try letters again: the writer reads their documents from MongoDB as they are now.

    Nothing newer is overwritten, nothing deleted comes back. A letter that is rejected again is a new letter, one
    attempt further. May be repeated.
    """
    return await platform.blocking.run(partial(platform.dead_letters.replay, name, meant))


@router.post("/discard", dependencies=[guard(Permission.DEAD_LETTERS_DISCARD, Action.DEAD_LETTERS_DISCARD)])
async def discard_dead_letters(name: Name, meant: LettersMeant, platform: ThePlatform) -> DiscardResult:
    """Give letters up for good; their content is deleted. May be repeated."""
    return await platform.blocking.run(partial(platform.dead_letters.discard, name, meant))
