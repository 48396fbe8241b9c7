"""`If-Match`: nobody's change overwrites one that its maker has not seen."""

from typing import Final

from control_plane.problems import Problem

ANY_VERSION: Final = "*"


def check_etag(etag: str, if_match: str | None, changed: str) -> None:
    """Hold what the caller gave against the ETag of the state in force.

    `changed` says that it is another one now. Raises `Problem` 428 without an `If-Match`, 412 when none of its ETags is
    `etag`.
    """
    if if_match is None:
        raise Problem(
            428,
            "precondition_required",
            "send If-Match with the ETag that GET gave, so that nobody else's change is overwritten",
        )
    given = {each.strip() for each in if_match.split(",")}
    if ANY_VERSION not in given and etag not in given:
        raise Problem(412, "precondition_failed", f"{changed}; read it again", headers={"ETag": etag})
