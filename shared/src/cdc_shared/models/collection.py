"""The name of a collection."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Collection:
    """Where a document lives in MongoDB, as the event itself says (a topic's name may have been sanitised)."""

    database: str
    name: str
