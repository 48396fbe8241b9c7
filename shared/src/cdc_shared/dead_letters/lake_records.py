"""Sealed records that are too large for the topic: objects at `<root>/<pipeline>/_dead_letters/…`, beside the tables.

No table lies there: a table is `<root>/<pipeline>/<database>/<collection>`, no database of that name is captured, and
vacuum looks below one table only.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import obstore
from obstore import exceptions as obstore_errors

from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.errors import Fatal
from cdc_shared.models.common import DEAD_LETTERS_DIRECTORY
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import map_store_error, open_store, path_segment

STORE_ERRORS: Final = (obstore_errors.BaseError, OSError)


class ContentGone(Fatal):
    """What a letter points to in the lake is not there, or is not where a letter's content lies."""


def lake_directory(root: str, pipeline: str) -> str:
    """Where the pipeline's large letters are; `root` is where its tables are."""
    return f"{root.rstrip('/')}/{path_segment(pipeline)}/{DEAD_LETTERS_DIRECTORY}"


def put_in_lake(root: str, pipeline: str, place: Place, sealed: bytes, stores: ObjectStoreSettings) -> str:
    """Store a sealed record, again if need be; its URL. Raises `Transient`, `Fatal`."""
    directory, name = lake_directory(root, pipeline), _name(place)
    try:
        obstore.put(open_store(directory, stores), name, sealed)
    except STORE_ERRORS as error:
        raise map_store_error(error, f"write {directory}/{name}") from error
    return f"{directory}/{name}"


def get_from_lake(letter: Letter, stores: ObjectStoreSettings) -> bytes:
    """The sealed record of a letter that has a `lake_url`. Raises `ContentGone`, `Transient`, `Fatal`."""
    directory, name = _directory_of(letter)
    try:
        return bytes(obstore.get(open_store(directory, stores), name).bytes())
    except FileNotFoundError:
        raise ContentGone("its content in the lake is gone; it can only be discarded") from None
    except STORE_ERRORS as error:
        raise map_store_error(error, f"read {letter.lake_url}") from error


def delete_from_lake(letter: Letter, stores: ObjectStoreSettings) -> None:
    """Delete the sealed record of a letter that has a `lake_url`; gone already is well."""
    directory, name = _directory_of(letter)
    try:
        obstore.delete(open_store(directory, stores), name)
    except FileNotFoundError:
        pass
    except STORE_ERRORS as error:
        raise map_store_error(error, f"delete {letter.lake_url}") from error


def expire_in_lake(
    directory: str,
    stores: ObjectStoreSettings,
    retention: timedelta,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Delete what is older than the topic keeps its letters; how many objects. Raises `Transient`, `Fatal`."""
    store = open_store(directory, stores)
    deleted = 0
    try:
        for page in obstore.list(store):
            old = [found["path"] for found in page if found["last_modified"] < now() - retention]
            if old:
                obstore.delete(store, old)
            deleted += len(old)
    except STORE_ERRORS as error:
        raise map_store_error(error, f"clean up {directory}") from error
    return deleted


def _name(place: Place) -> str:
    return f"{path_segment(place.topic)}/{place.partition}/{place.offset}"


def _directory_of(letter: Letter) -> tuple[str, str]:
    """The directory and the name in it. A letter cannot make us touch an object that is not its own."""
    url, name = letter.lake_url or "", _name(letter.place)
    directory = url.removesuffix(f"/{name}")
    if directory == url or not directory.endswith(f"/{path_segment(letter.pipeline)}/{DEAD_LETTERS_DIRECTORY}"):
        raise ContentGone("it points to what is no letter's content; it can only be discarded")
    return directory, name
