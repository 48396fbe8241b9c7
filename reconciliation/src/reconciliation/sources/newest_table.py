"""A collection's table as it goes on: its newest version at the cost of the log entries that came since the last."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.errors import Fatal
from cdc_shared.snapshots.table_state import has_gap
from cdc_shared.storage.object_store import map_store_error
from reconciliation.reconciler.result import TopicPositions
from reconciliation.sources.deltalake_reader import KeyedRows, KeyHash, PinnedTable, RowLocation, StoredRow


class TableFollower:
    """Not thread-safe. Every method raises `Transient` and `Fatal` for the store's errors."""

    def __init__(
        self, store: ObjectStore, topic_name: str, table_id: str | None = None, searched: Collection[str] = ()
    ) -> None:
        """`table_id` (`PinnedTable.table_id`) and the data files of the version that was scanned: rows of candidates
        are looked for in other files only. None is no such version, and every file is searched.
        """
        self._store = store
        self._log = DeltaLog(store)
        self._topic_name = topic_name
        self._table_id = table_id
        self._searched = frozenset(searched)
        self._snapshot: Snapshot | None = None
        self._newest: PinnedTable | None = None

    def newest(self, topic: TopicPositions) -> PinnedTable:
        """Return the table's newest version, whose watermark and positions are those of this topic.

        Raises:
            Fatal: the table was restored or made again since it was scanned, or there is none.
        """
        try:
            snapshot = self._read_on()
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"the log of the table of {self._topic_name}") from error
        identity = ChangeTopic(self._topic_name, topic.topic_id, len(topic.offsets))
        if self._newest is None or self._newest.version != snapshot.version or self._newest.topic != identity:
            # Reading on changes the snapshot in place; what was given out stays the version that it is.
            state = Snapshot(
                snapshot.version, snapshot.protocol, snapshot.metadata, dict(snapshot.txns), dict(snapshot.files)
            )
            self._newest = PinnedTable(self._store, identity, state)
        if self._table_id is None:
            self._table_id = self._newest.table_id
        if self._newest.table_id != self._table_id:
            raise Fatal(
                f"the table of {self._topic_name} was restored or made again while it was compared: start another job"
            )
        return self._newest

    def is_whole(self, table: PinnedTable) -> bool:
        """Tell whether no snapshot is needed to make up for changes that never came."""
        return not has_gap(table.snapshot, table.topic)

    def rows(
        self, table: PinnedTable, wanted: Mapping[KeyHash, Sequence[RowLocation]]
    ) -> Iterator[tuple[KeyHash, StoredRow]]:
        """Yield the live rows of these keys; their places in the version that was scanned save looking for them."""
        return KeyedRows(wanted, wanted, self._searched).find(table)

    def _read_on(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = self._log.load()
            return self._snapshot
        snapshot = self._snapshot
        while (actions := self._log.read_entry(snapshot.version + 1)) is not None:
            snapshot.apply(snapshot.version + 1, actions)
        return snapshot
