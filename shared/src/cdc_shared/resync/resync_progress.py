"""Following a resync to its end: what the connector tells, and when each table is whole again."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import table_location
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.resync.resync import ResyncTarget, Say
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.snapshots.notification_reader import NotificationReader
from cdc_shared.snapshots.notifications import Notification, NotificationKind
from cdc_shared.snapshots.table_state import has_arrived, is_swept
from cdc_shared.snapshots.topic_positions import AttemptBounds, TopicPositions
from cdc_shared.storage.object_store import store_errors

POLL_S: Final = 0.5
CONNECTOR_CHECK_S: Final = 5.0
REMINDER_S: Final = 60.0
# Asked for between two changes of the stream, a snapshot began within 25 s (Debezium 3.6.1, quiet source).
START_TIMEOUT_S: Final = 180.0


class ResyncProgress:
    """Where a resync stands. Not thread-safe; close it when done. Every method raises `Transient` or `Fatal`.

    Nothing that it knows is lost with it: made again for the same target, it finds out the same.
    """

    def __init__(
        self, spec: PipelineSpec, stores: ObjectStoreSettings, target: ResyncTarget, bootstrap_servers: str, say: Say
    ) -> None:
        """`say` gets lines for people."""
        self._spec = spec
        self._stores = stores
        self._since = target.since
        self._say = say
        self._waiting = dict(target.topics)
        self._bounds: dict[str, AttemptBounds] = {}
        self._notifications = NotificationReader(bootstrap_servers, spec.name)
        self._positions = TopicPositions(bootstrap_servers)
        self.begun = False
        """Whether the snapshot has begun."""
        self.completed = False
        """Whether the connector has sent all of it."""

    @property
    def waiting(self) -> list[str]:
        """The collections whose tables are not whole yet."""
        return list(self._waiting)

    @property
    def is_over(self) -> bool:
        """Whether every table is whole again."""
        return self.completed and not self._waiting

    @property
    def is_up_to_date(self) -> bool:
        """Whether everything that the connector had told at the start is known."""
        return self._notifications.caught_up

    def look(self, timeout_s: float) -> None:
        """Take in what the connector has told, waiting up to `timeout_s` for it; then look at the tables."""
        for each in self._notifications.read(timeout_s):
            if each.offset >= self._since:
                self._take_in(each)
        if self.completed and self.is_up_to_date:
            for collection, topic in list(self._waiting.items()):
                self._look_at(collection, topic)

    def close(self) -> None:
        """Give the consumers back."""
        self._notifications.close()
        self._positions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take_in(self, notification: Notification) -> None:
        match notification.kind:
            case NotificationKind.STARTED:
                self.begun, self.completed = True, False
                self._say("the snapshot has begun")
            case NotificationKind.IN_PROGRESS:
                self._say(f"reading {notification.collection}")
            case NotificationKind.COMPLETED if self.begun:
                self.completed = True
                self._say("the snapshot is complete; waiting until the tables hold it")
            case NotificationKind.ABORTED:
                self.begun = False
                self._say("the snapshot was aborted; the connector begins it again")

    def _look_at(self, collection: str, topic: ChangeTopic) -> None:
        name = f"{self._spec.source.database}.{collection}"
        attempt = self._notifications.history.last_completed(name, self._since)
        if attempt is None:
            self._say(f"{name} is not in the source any more: its table stays as it is")
            del self._waiting[collection]
            return
        if collection not in self._bounds:
            self._bounds[collection] = self._positions.bounds(topic, attempt.started_ms)
        version = self._whole_at(collection, topic, self._bounds[collection])
        if version is not None:
            self._say(f"{name} is whole again" + (f" (version {version})" if version >= 0 else ": it is empty"))
            del self._waiting[collection]

    def _whole_at(self, collection: str, topic: ChangeTopic, bounds: AttemptBounds) -> int | None:
        """Return the table's version when it holds the snapshot and no older row, else None; -1 for no table."""
        location = table_location(self._spec, self._stores, Collection(self._spec.source.database, collection))
        with store_errors(f"reading the log of {location.url}"):
            table = DeltaLog(location.store).load()
        if is_swept(table, topic, bounds) and has_arrived(table, topic, bounds.end, self._positions.has_change):
            return table.version
        return None


def follow(
    progress: ResyncProgress,
    pipeline: str,
    connect: ConnectClient,
    say: Say,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when every table is whole again, waiting out what is away meanwhile.

    Raises:
        Fatal: the connector has failed.
        Transient: the connector has not begun in time.
    """
    started = checked = reminded = clock()
    while not progress.is_over:
        _waiting_out(lambda: progress.look(POLL_S), say)
        if clock() - checked >= CONNECTOR_CHECK_S:
            checked = clock()
            _waiting_out(lambda: _check_connector(pipeline, connect), say)
        if not progress.begun and clock() - started > START_TIMEOUT_S:
            raise Transient(not_begun(pipeline))
        if progress.waiting and clock() - reminded > REMINDER_S:
            reminded = clock()
            say(f"still waiting for {', '.join(progress.waiting)}; a delta-writer must run the pipeline")


def not_begun(pipeline: str) -> str:
    """Say that the connector has begun no snapshot in time."""
    return (
        f"connector {pipeline} has begun no snapshot within {START_TIMEOUT_S:.0f} s; see its log, or resync the whole "
        "pipeline (naming no collection), which restarts it"
    )


def _waiting_out(look: Callable[[], None], say: Say) -> None:
    try:
        look()
    except Transient as error:
        say(f"waiting: {error}")


def _check_connector(pipeline: str, connect: ConnectClient) -> None:
    status = connect.status(pipeline)
    if status is None or status.failure is not None:
        why = "was removed" if status is None else f"has failed: {status.failure}"
        raise Fatal(f"connector {pipeline} {why}; correct the cause and resync again")
