"""The source as the checks look at it: one client for all of them, with short time-outs, for reading only."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidOperation, PyMongoError

from cdc_shared.connect.connector_secrets import connection_settings
from cdc_shared.models.common import SourceSpec
from cdc_shared.security.references import resolve_reference
from cdc_shared.security.secret_provider import Secret, SecretProvider
from cdc_shared.source.errors import map_connection_error, map_source_error

SELECTION_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 6.0
APPLICATION_NAME: Final = "cdc-preflight"

Document = dict[str, Any]


class SourceProbe:
    """A pipeline's source. Nothing is resolved or connected before it is first asked. Any thread may use it."""

    def __init__(self, source: SourceSpec, providers: Mapping[str, SecretProvider]) -> None:
        self.spec = source
        self._providers = providers
        self._lock = threading.Lock()
        self._client: MongoClient[Document] | None = None
        self._closed = False

    @cached_property
    def connection(self) -> Secret:
        """The connection string. Raises `Fatal` for a reference that leads nowhere and for what is no such string."""
        secret = resolve_reference(self.spec.connection, self._providers)
        connection_settings(secret)
        return secret

    @contextmanager
    def asking(self, what: str) -> Iterator[MongoClient[Document]]:
        """A client to ask within the block; what goes wrong there comes out as `CdcError`, without secrets."""
        what = f"{what} at the source ({self.spec.connection})"
        try:
            yield self._connected(what)
        except (PyMongoError, BSONError) as error:
            raise map_source_error(error, what) from None

    @contextmanager
    def reading(self, what: str) -> Iterator[Database[Document]]:
        """As `asking`, with the pipeline's database."""
        with self.asking(what) as client:
            yield client.get_database(self.spec.database)

    @cached_property
    def collections(self) -> dict[str, Mapping[str, Any]]:
        """What the source tells of each collection of the database that the pipeline captures, by name."""
        with self.reading("list the collections") as database:
            found = list(database.list_collections())
        return {each["name"]: each for each in found if self._is_captured(each["name"])}

    def close(self) -> None:
        """Disconnect, for good."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def _is_captured(self, name: str) -> bool:
        return not name.startswith("system.") and self.spec.captures(name)

    def _connected(self, what: str) -> MongoClient[Document]:
        connection = self.connection.reveal()
        with self._lock:
            if self._closed:
                raise InvalidOperation("the preflight is over")
            if self._client is None:
                try:
                    self._client = _client(connection)
                except (PyMongoError, ValueError, OSError) as error:
                    raise map_connection_error(error, what) from None
            return self._client


def _client(connection: str) -> MongoClient[Document]:
    if not connection.startswith(("mongodb://", "mongodb+srv://")):  # pymongo would take it for a host, and show it
        raise ConfigurationError("no MongoDB URI")
    return MongoClient(
        connection,
        appname=APPLICATION_NAME,
        serverSelectionTimeoutMS=int(SELECTION_TIMEOUT_S * 1000),
        connectTimeoutMS=int(SELECTION_TIMEOUT_S * 1000),
        socketTimeoutMS=int(ANSWER_TIMEOUT_S * 1000),
        connect=False,
        retryReads=False,
    )
