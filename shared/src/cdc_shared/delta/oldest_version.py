"""How far back a table can be read, announced by its vacuum before it deletes anything.

The log may lead further back than the data files do: it is kept from a checkpoint on, and files are kept from a version
on. So vacuum writes that version into `_delta_log/_cdc_oldest_version` first, where readers look before they begin, and
deletes only a while later (`READERS_GRACE_S`): whoever began to read an older version before that is done by then.
Other programs pass over the file, as over `_last_checkpoint`.
"""

from typing import Final, NamedTuple

import msgspec
import obstore
from obstore.store import ObjectStore

PATH: Final = "_delta_log/_cdc_oldest_version"
READERS_GRACE_S: Final = 3600.0
"""Longest that a query of the platform's own API may take (`API_QUERY_TIMEOUT_S`)."""


class OldestVersion(NamedTuple):
    """What was announced."""

    version: int
    at: float
    """When, in seconds since the epoch, by the store's clock."""


class _Content(msgspec.Struct, frozen=True):
    version: int


def oldest_version(store: ObjectStore) -> OldestVersion | None:
    """Return what was announced of the table at the root of `store`; None when nothing was. One request."""
    try:
        found = obstore.get(store, PATH)
    except FileNotFoundError:
        return None
    content = msgspec.json.decode(bytes(found.bytes()), type=_Content)
    return OldestVersion(content.version, found.meta["last_modified"].timestamp())


def announce_oldest_version(store: ObjectStore, version: int) -> None:
    """Announce that versions before this one can no longer be read. What was announced is never taken back."""
    before = oldest_version(store)
    if before is None or before.version < version:
        obstore.put(store, PATH, msgspec.json.encode(_Content(version)), use_multipart=False)
