"""A pipeline's source: the MongoDB deployment that its spec refers to, connected to when it is first asked."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bson.errors import BSONError
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import ConfigurationError, PyMongoError
from pymongo.read_concern import ReadConcern

from cdc_shared.errors import CdcError, Fatal
from cdc_shared.models.common import SourceSpec
from cdc_shared.security.references import resolve_reference, secret_providers
from cdc_shared.settings import SecretsSettings
from cdc_shared.source.errors import RequestRefused, map_connection_error, map_source_error

ANSWER_TIMEOUT_S: Final = 20.0
"""For each answer. Not pymongo's `timeout`: under it an absent server is waited for as long as for an answer."""
SERVER_SELECTION_TIMEOUT_S: Final = 5.0
SCHEMES: Final = ("mongodb://", "mongodb+srv://")
APPLICATION_NAME: Final = "cdc-platform"


class MongodbSource:
    """Reads and writes the source's primary. Nothing is resolved or connected before the first `asking`.

    Any thread may use it. A client that ended in `Fatal` (a wrong password, say) is forgotten: the next `asking`
    resolves the reference again, so that a corrected secret is seen.
    """

    def __init__(
        self,
        source: SourceSpec,
        secrets: SecretsSettings,
        environ: Mapping[str, str] = os.environ,
        *,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """`environ` is where `env:` references are looked up; `answer_timeout_s` is for each answer."""
        self._source = source
        self._secrets = secrets
        self._environ = environ
        self._answer_timeout_s = answer_timeout_s
        self._lock = threading.Lock()
        self._client: MongoClient[dict[str, Any]] | None = None

    @contextmanager
    def asking(self, what: str) -> Iterator[ClientSession]:
        """Talk to the source within the block; errors of pymongo come out as ours.

        Yields a session that notes when the source answered (`operation_time_ms`), for those who want to know. `what`
        names the action, for the message. Raises `Transient` while the source is away or busy, `Fatal` with the remedy
        for what no waiting cures, among them a reference that cannot be resolved.
        """
        what = f"{what} at the source ({self._source.connection})"
        try:
            client = self._connected()
            with client.start_session(causal_consistency=False) as session:
                yield session
        except (PyMongoError, BSONError) as error:
            raise self._mapped(error, what) from None

    def database(self, name: str) -> Database[dict[str, Any]]:
        """A database as the primary has it, whatever the connection string prefers: majority reads and writes.

        Use it within `asking`.
        """
        return self._connected().get_database(
            name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
        )

    def close(self) -> None:
        """Disconnect. A later `asking` connects again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> MongoClient[dict[str, Any]]:
        with self._lock:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> MongoClient[dict[str, Any]]:
        connection = resolve_reference(self._source.connection, secret_providers(self._secrets, self._environ))
        try:
            if not connection.reveal().startswith(SCHEMES):  # pymongo would take it for a host, and show it
                raise ConfigurationError("no MongoDB URI")
            return MongoClient(
                connection.reveal(),
                appname=APPLICATION_NAME,
                serverSelectionTimeoutMS=int(SERVER_SELECTION_TIMEOUT_S * 1000),
                connectTimeoutMS=int(SERVER_SELECTION_TIMEOUT_S * 1000),
                socketTimeoutMS=int(self._answer_timeout_s * 1000),
                connect=False,
                retryReads=False,  # the caller tries again, with its partitions paused and its group kept alive
                retryWrites=False,
            )
        except (PyMongoError, ValueError, OSError) as error:
            raise map_connection_error(error, f"connect to the source ({self._source.connection})") from None

    def _mapped(self, error: PyMongoError | BSONError, what: str) -> CdcError:
        mapped = map_source_error(error, what)
        if isinstance(mapped, Fatal) and not isinstance(mapped, RequestRefused):
            self.close()
        return mapped


def operation_time_ms(session: ClientSession) -> int:
    """The source's own time of the session's last answer, in ms since 1970, to the second as in change events.

    Raises `Fatal` when the source tells none: it is no replica set.
    """
    moment = session.operation_time
    if moment is None:
        raise Fatal("the source tells no operation time: it must be a replica set or a sharded cluster")
    return moment.time * 1000
