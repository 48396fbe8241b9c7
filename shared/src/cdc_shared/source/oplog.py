"""How far back a source's oplog reaches: for how long a connector may be away and still go on where it was."""

from typing import Any, NamedTuple

from pymongo import MongoClient
from pymongo.errors import OperationFailure


class OplogWindow(NamedTuple):
    """What an oplog spans, in the source's own time."""

    first_s: int
    """Of the oldest entry, in seconds since 1970."""
    last_s: int
    used: float | None
    """The share of its greatest size that it has; None where the server does not tell."""

    @property
    def seconds(self) -> int:
        """How far it reaches back now."""
        return self.last_s - self.first_s

    @property
    def expected_s(self) -> float | None:
        """How far it will reach back once it is full, at the rate of writes so far; None where nothing tells."""
        if not self.used:
            return None
        return self.seconds / min(1.0, self.used)


def oplog_window(client: MongoClient[dict[str, Any]]) -> OplogWindow | None:
    """What the oplog spans; None where a server does not show it: a `mongos`, or SecantusDB.

    SecantusDB can be asked, but reads its whole oplog for any answer and serves nobody meanwhile (10 s for 330,000
    entries). Raises pymongo's errors, among them `OperationFailure` 13 for a user who may not read `local`.
    """
    if client.admin.command("hello").get("msg") == "isdbgrid":
        return None
    if "secantusVersion" in client.admin.command("buildInfo"):
        return None
    oplog = client.get_database("local")["oplog.rs"]
    first, last = (oplog.find_one(projection={"ts": 1}, sort=[("$natural", order)]) for order in (1, -1))
    if first is None or last is None:
        return None
    return OplogWindow(first["ts"].time, last["ts"].time, _used(client))


def _used(client: MongoClient[dict[str, Any]]) -> float | None:
    try:
        told = client.get_database("local").command("collStats", "oplog.rs")
    except OperationFailure:
        return None
    greatest = told.get("maxSize") or 0
    return told.get("size", 0) / greatest if greatest else None
