"""Which tables there are under a root, found by listing it, and what each is called in SQL."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import duckdb

from cdc_shared.models.common import NO_TABLES
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import directories, name_of_segment, path_segment, store_errors, table_url


@dataclass(frozen=True, slots=True)
class LakeTable:
    """A directory that is a table's, by its place: `<root>/<pipeline>/<database>/<name>`.

    `name` is a collection's, or with `__changes` at its end that of its history.
    """

    pipeline: str
    database: str
    name: str
    url: str

    @property
    def names(self) -> tuple[str, str, str]:
        return self.pipeline, self.database, self.name

    @property
    def view(self) -> str:
        """Its name in SQL, in quotes where it needs them: `shop.shop.orders`."""
        return ".".join(map(quoted_name, self.names))

    def is_named_in(self, sql: str) -> bool:
        """Tell whether a statement has its whole name in it, in quotes or not, in any case."""
        parts = r"\s*\.\s*".join(map(_spelled, self.names))
        return re.search(rf"(?<!\w){parts}(?!\w)", sql, re.IGNORECASE) is not None


class TableCatalog:
    """The tables under `root`, of all pipelines or of some. Nothing is kept between calls: each lists what is there.

    Raises `Transient` or `Fatal` when the store does not answer, or `root` names none.
    """

    def __init__(self, stores: ObjectStoreSettings, root: str, pipelines: Collection[str] | None = None) -> None:
        """`pipelines`: those whose tables are there for whoever asks; None: all."""
        self._stores = stores
        self._pipelines = pipelines
        self.root = root.rstrip("/")

    def tables(self, named_in: str | None = None) -> list[LakeTable]:
        """Return the tables by name; with a statement, those that it names.

        Requests: one for the root, one for each pipeline and one for each database that the statement may name.
        """
        with store_errors(f"looking for tables under {self.root}"):
            found = [table for table in self._walk(named_in) if named_in is None or table.is_named_in(named_in)]
        return sorted(found, key=lambda table: table.names)

    def _walk(self, sql: str | None) -> Iterator[LakeTable]:
        def may_be_named(name: str) -> bool:
            return sql is None or re.search(_spelled(name), sql, re.IGNORECASE) is not None

        for pipeline in filter(may_be_named, self._below()):
            if self._pipelines is not None and pipeline not in self._pipelines:
                continue
            for database in filter(may_be_named, self._below(pipeline)):
                if database in NO_TABLES:
                    continue
                for name in self._below(pipeline, database):
                    yield LakeTable(pipeline, database, name, table_url(self.root, pipeline, database, name))

    def _below(self, *names: str) -> list[str]:
        url = "/".join((self.root, *map(path_segment, names)))
        return list(map(name_of_segment, directories(url, self._stores)))


def quoted_name(name: str) -> str:
    """Return a SQL identifier, in double quotes unless it is plain."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) and duckdb.tokenize(name) == [(0, duckdb.token_type.identifier)]
    return name if plain else _in_quotes(name)


def _spelled(name: str) -> str:
    """Return a pattern of the ways to write a name in SQL."""
    return f"(?:{re.escape(_in_quotes(name))}|{re.escape(name)})"


def _in_quotes(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
