"""Following a resync to its end: what the connector tells, and when each table is whole again."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.common import PipelineSpec
from cdc_shared.resync.resync import Resync, Say
from cdc_shared.snapshots.notification_reader import NotificationReader
from cdc_shared.snapshots.notifications import Notification, NotificationKind
from cdc_shared.snapshots.table_state import is_swept
from cdc_shared.snapshots.topic_positions import AttemptBounds, TopicPositions
from cdc_shared.storage.object_store import store_errors

POLL_S: Final = 0.5
CONNECTOR_CHECK_S: Final = 5.0
REMINDER_S: Final = 60.0
# Asked for between two changes of the stream, a snapshot began within 25 s (Debezium 3.6.1, quiet source).
START_TIMEOUT_S: Final = 180.0


class ResyncProgress:
    """Follows one resync. Not thread-safe; `run` blocks."""

    def __init__(
        self,
        resync: Resync,
        spec: PipelineSpec,
        topics: Mapping[str, ChangeTopic],
        bootstrap_servers: str,
        connect: ConnectClient,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`topics`: the collections to wait for, as `Resync.start` returned them."""
        self._resync = resync
        self._pipeline = spec.name
        self._database = spec.source.database
        self._waiting = dict(topics)
        self._bounds: dict[str, AttemptBounds] = {}
        self._bootstrap = bootstrap_servers
        self._connect = connect
        self._say = say
        self._clock = clock
        self._begun = False
        self._completed = False

    def run(self) -> None:
        """Return when every table is whole again.

        Raises:
            Fatal: the connector has failed.
            Transient: the connector has not begun in time, or Kafka was away from the start.
        """
        started = checked = reminded = self._clock()
        with (
            closing(NotificationReader(self._bootstrap, self._pipeline)) as notifications,
            closing(TopicPositions(self._bootstrap)) as positions,
        ):
            while self._waiting or not self._completed:
                self._tell([each for each in notifications.read(POLL_S) if each.offset >= self._resync.since])
                if self._clock() - checked >= CONNECTOR_CHECK_S:
                    checked = self._clock()
                    self._waiting_out(self._check_connector)
                if not self._begun and self._clock() - started > START_TIMEOUT_S:
                    raise Transient(
                        f"connector {self._pipeline} has begun no snapshot within {START_TIMEOUT_S:.0f} s; see its "
                        "log, or resync the whole pipeline (without --collection), which restarts it"
                    )
                if self._completed:
                    self._waiting_out(lambda: self._look_at_tables(notifications, positions))
                if self._waiting and self._clock() - reminded > REMINDER_S:
                    reminded = self._clock()
                    self._say(f"still waiting for {', '.join(self._waiting)}; a delta-writer must run the pipeline")

    def _waiting_out(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Transient as error:
            self._say(f"waiting: {error}")

    def _tell(self, notifications: list[Notification]) -> None:
        for each in notifications:
            match each.kind:
                case NotificationKind.STARTED:
                    self._begun, self._completed = True, False
                    self._say("the snapshot has begun")
                case NotificationKind.IN_PROGRESS:
                    self._say(f"reading {each.collection}")
                case NotificationKind.COMPLETED if self._begun:
                    self._completed = True
                    self._say("the snapshot is complete; waiting until the tables hold it")
                case NotificationKind.ABORTED:
                    self._begun = False
                    self._say("the snapshot was aborted; the connector begins it again")

    def _check_connector(self) -> None:
        status = self._connect.status(self._pipeline)
        if status is None or status.failure is not None:
            why = "was removed" if status is None else f"has failed: {status.failure}"
            raise Fatal(f"connector {self._pipeline} {why}; correct the cause and resync again")

    def _look_at_tables(self, notifications: NotificationReader, positions: TopicPositions) -> None:
        for collection, topic in list(self._waiting.items()):
            name = f"{self._database}.{collection}"
            attempt = notifications.history.last_completed(name, self._resync.since)
            if attempt is None:
                self._say(f"{name} is not in the source any more: its table stays as it is")
                del self._waiting[collection]
                continue
            if collection not in self._bounds:
                self._bounds[collection] = positions.bounds(topic, attempt.started_ms)
            version = self._whole_at(collection, topic, self._bounds[collection], positions)
            if version is not None:
                self._say(f"{name} is whole again" + (f" (version {version})" if version >= 0 else ": it is empty"))
                del self._waiting[collection]

    def _whole_at(
        self, collection: str, topic: ChangeTopic, bounds: AttemptBounds, positions: TopicPositions
    ) -> int | None:
        """Return the table's version when it holds the snapshot and no older row, else None; -1 for no table."""
        location = self._resync.location(collection)
        with store_errors(f"reading the log of {location.url}"):
            table = DeltaLog(location.store).load()
        if not is_swept(table, topic, bounds):
            return None
        stands = {p: table.txns.get(app_id(topic, p), 0) for p in bounds.end}
        arrived = all(
            stands[p] >= end or not positions.has_change(topic, p, stands[p], end) for p, end in bounds.end.items()
        )
        return table.version if arrived else None
