"""A collection as the source has it, read in chunks as the bytes that it is stored in."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from bson import Timestamp
from pymongo import MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import SecondaryPreferred

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.collection import Collection
from cdc_shared.retry import RetryAttempt, retrying
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.sources.chunks import Chunk
from reconciliation.sources.raw_ids import id_only, split_documents
from reconciliation.sources.throttle import Throttle
from reconciliation.workers.checkpoint import checkpoint, pause

log = get_logger(__name__)

MAX_STALENESS_S: Final = 120
"""Secondaries further behind are not read; MongoDB takes no less than 90."""
ANSWER_TIMEOUT_S: Final = 120.0
"""For each batch, which may wait for a secondary to come as far as it must have."""
GIVE_UP_AFTER_S: Final = 300.0
"""So long the source may be away before the chunk fails."""
COUNT_TIMEOUT_S: Final = 10.0

_ORDER: Final = [("_id", 1)]
_MAJORITY: Final = ReadConcern("majority")


@dataclass(frozen=True, slots=True)
class DocumentCount:
    """How many documents there are; `exact` is false for what the source has noted down, which a crash can falsify."""

    documents: int
    exact: bool


class MongodbReader:
    """Reads one collection from secondaries where there are some, else from the primary.

    A connection string that names a read preference of its own, for nodes kept for such work, is followed.
    """

    def __init__(
        self,
        source: MongodbSource,
        collection: Collection,
        *,
        not_before: Timestamp | None = None,
        keys_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        """Documents are read as they were at the operation time `not_before` or later; `keys_only` reads `_id`s."""
        self._source = source
        self._collection = collection
        self._not_before = not_before
        self._keys_only = keys_only
        self._clock = clock
        self._sleep = sleep
        self._what = f"read {collection.database}.{collection.name}"
        self.retries = 0
        """How often the source was asked again after it had failed."""

    def operation_time(self) -> Timestamp:
        """Return the primary's present operation time: what is read at it or later has all that was written before.

        Raises `Transient`, and `Fatal` when the source tells none.
        """
        with self._source.asking(self._what) as session:
            session.client.admin.command("ping", session=session, read_preference=ReadPreference.PRIMARY)
            moment = session.operation_time
        if moment is None:
            raise Fatal("the source tells no operation time: it must be a replica set or a sharded cluster")
        return moment

    def count(self) -> DocumentCount:
        """Return how many documents there are: counted if that takes seconds, else as the source has noted it down.

        Raises `Transient` and `Fatal` as `MongodbSource.asking` does.
        """
        with suppress(Transient), self._source.asking(self._what) as session:
            counted = self._documents(session.client).count_documents(
                {}, hint=_ORDER, maxTimeMS=int(COUNT_TIMEOUT_S * 1000), session=session
            )
            return DocumentCount(counted, exact=True)
        with self._source.asking(self._what) as session:
            return DocumentCount(self._documents(session.client).estimated_document_count(), exact=False)

    def read(self, chunk: Chunk, throttle: Throttle) -> Iterator[list[bytes]]:
        """Yield the chunk's documents in batches, in the order of their `_id`s, each document exactly once.

        When the source goes away in between, the reading goes on behind the last document that came. Raises `Transient`
        when it stays away for `GIVE_UP_AFTER_S`, `Fatal` for what no waiting cures, and what `checkpoint` raises.
        """
        reading = _ChunkReading(self, chunk, throttle)
        never = threading.Event()
        try:
            while True:
                checkpoint()
                throttle.wait()
                batch = retrying(
                    reading.next_batch,
                    self._note_retry,
                    never,
                    give_up_after_s=GIVE_UP_AFTER_S,
                    sleep=self._sleep,
                    clock=self._clock,
                )
                if batch is None:
                    return
                if batch:
                    yield batch
        finally:
            reading.close()

    def _documents(self, client: MongoClient[dict[str, Any]]) -> Any:
        preference = client.read_preference
        if preference == ReadPreference.PRIMARY:
            preference = SecondaryPreferred(max_staleness=MAX_STALENESS_S)
        return client[self._collection.database].get_collection(
            self._collection.name, read_preference=preference, read_concern=_MAJORITY
        )

    def _note_retry(self, attempt: RetryAttempt) -> None:
        self.retries += 1
        log.warning(
            "source_read_again", error=str(attempt.error), attempt=attempt.number, wait_s=round(attempt.wait_s, 2)
        )


class _OldSnapshot(CdcError):
    """A node that is behind took a snapshot of a time before what must be read."""


class _ChunkReading:
    """Where the reading of a chunk is: a cursor, or the last document that one gave.

    The first cursor is one at a snapshot, where the source has such; others follow the causal order. Neither is needed
    for a verdict (each document is read at `not_before` or later, an `_id` never moves, and what differs is read again)
    but at a snapshot the documents of a chunk belong together. A source gives a snapshot up after some minutes.
    """

    def __init__(self, reader: MongodbReader, chunk: Chunk, throttle: Throttle) -> None:
        self._reader = reader
        self._chunk = chunk
        self._throttle = throttle
        self._after: bytes | None = None
        self._at_snapshot = True
        self._session: ClientSession | None = None
        self._cursor: Any = None

    def next_batch(self) -> list[bytes] | None:
        """The next documents, None after the last. After an error, the next call asks for what follows the last."""
        try:
            return self._ask()
        except CdcError as error:
            self.close()
            was_at_snapshot, self._at_snapshot = self._at_snapshot, False
            if was_at_snapshot and not isinstance(error, Transient):  # a snapshot cannot be had
                return self.next_batch()
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the cursor and its session."""
        cursor, session, self._cursor, self._session = self._cursor, self._session, None, None
        for each in (cursor, session):
            if each is not None:
                with suppress(PyMongoError):  # the source forgets them by itself
                    if isinstance(each, ClientSession):
                        each.end_session()
                    else:
                        each.close()

    def _ask(self) -> list[bytes] | None:
        reader = self._reader
        with reader._source.asking(reader._what) as asking:
            if self._cursor is None:
                self._open(asking.client)
            began = reader._clock()
            raw = next(self._cursor, None)
            took_s = reader._clock() - began
        if raw is None:
            self.close()
            return None
        self._check_time()
        documents = list(split_documents(raw))
        if documents:
            self._after = id_only(documents[-1])
        self._throttle.answered(len(documents), len(raw), took_s)
        return documents

    def _open(self, client: MongoClient[dict[str, Any]]) -> None:
        reader = self._reader
        if self._at_snapshot:
            self._session = client.start_session(snapshot=True)
        else:
            self._session = client.start_session(causal_consistency=True)
            if reader._not_before is not None:
                self._session.advance_operation_time(reader._not_before)
        self._cursor = reader._documents(client).find_raw_batches(
            self._chunk.filter(self._after),
            {"_id": 1} if reader._keys_only else None,
            session=self._session,
            # No hint: a query for nothing but _id in its order takes this index in any case, and SecantusDB, told to
            # use it, gives embedded documents in another order than the one that it compares them in.
            sort=_ORDER,
            batch_size=self._throttle.batch_documents,
        )

    def _check_time(self) -> None:
        """Refuse a snapshot that is older than what must be read."""
        if not self._at_snapshot or self._reader._not_before is None:
            return
        # Public in no version of the driver that is supported.
        taken = getattr(self._session, "_snapshot_time", None)
        if taken is None or taken < self._reader._not_before:
            raise _OldSnapshot
