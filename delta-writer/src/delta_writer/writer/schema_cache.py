"""What is known of tables' schemas, by their URL, for as long as it may be believed without looking."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cdc_shared.documents import DocumentSchema

TTL_S: Final = 300.0
_UNKNOWN_RULES: Final = object()


@dataclass(frozen=True, slots=True)
class _Known:
    table: DocumentSchema
    documents: DocumentSchema
    rules: object
    until: float


class SchemaCache:
    """Of each table, the schema that it had when it was last looked at, and that of the documents that came to it.

    The documents' may be wider: fields that were only null, or that rules leave out. Learning it again costs ten times
    what decoding does, so it outlives a table that is closed and opened again (a rebalance, an outage). Whoever looks
    at a table or commits to it puts it in anew; after `ttl_s` without that, it is no longer believed, and somebody has
    to look (`SchemaManager.look_again`): else nobody would notice what others did to a table that is quiet.

    Not thread-safe. `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._known: dict[str, _Known] = {}

    def put(self, url: str, table: DocumentSchema, documents: DocumentSchema, rules: object = None) -> None:
        """The table has this schema now, and documents of that one come to it by these rules."""
        self._known[url] = _Known(table, documents, rules, self._clock() + self._ttl_s)

    def documents(self, url: str, table: DocumentSchema, rules: object = None) -> DocumentSchema | None:
        """Return the schema of a table's documents; None when it is not known, or not for that schema and these rules.

        Rules are told apart as objects: those that came with another spec are others.
        """
        known = self._believed(url)
        fits = known is not None and known.table == table and known.rules is rules
        return known.documents if known is not None and fits else None

    def looked_at(self, url: str, table: DocumentSchema) -> None:
        """Somebody has looked: the table has this schema."""
        known = self._known.get(url)
        if known is not None and known.table == table:
            self.put(url, table, known.documents, known.rules)
        else:
            self.put(url, table, table, _UNKNOWN_RULES)

    def must_look(self, url: str) -> bool:
        """Tell whether nobody has looked at the table for `ttl_s`."""
        return self._believed(url) is None

    def _believed(self, url: str) -> _Known | None:
        known = self._known.get(url)
        if known is not None and self._clock() >= known.until:
            del self._known[url]
            return None
        return known
