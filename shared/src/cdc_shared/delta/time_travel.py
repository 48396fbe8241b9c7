"""Reading a table as of a time in the source, by the watermark that the delta-writer keeps in its log.

The watermark of a table is the source time strictly before which everything is in it. It is kept for each partition of
the change topic as a `txn` (`cdc-wm:<topic id>:<partition>`, ms since 1970), which checkpoints keep; and each log entry
names the table's, the minimum over the partitions, in its `commitInfo` (`cdcWatermark`), which is what is looked for
here: a few entries are read, whatever the length of the log.

Source time is MongoDB's operation time, to the second: what a driver's session shows of an answer
(`ClientSession.operation_time`). A server's wall clock, which `_cdc_source_ts` shows, may differ from it.
"""

from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from obstore.store import ObjectStore

from cdc_shared.delta.log import DeltaLog, entry_path
from cdc_shared.errors import CdcError, Fatal

WATERMARK_PREFIX: Final = "cdc-wm:"
COMMIT_INFO_KEY: Final = "cdcWatermark"
_WRITER_KEY: Final = "cdcTopic"  # in the commitInfo of every entry of the delta-writer's, and of nobody else's


class NoSuchMoment(CdcError):
    """The table cannot be read as of the time asked for. The message says why, and from when on it can."""


class AsOf(NamedTuple):
    """What a table can show for a time."""

    version: int
    """The newest version whose watermark is not later than that time."""
    watermark_ms: int
    """Everything in the source strictly before this is in that version; of what came later, some may be."""


def watermark_id(topic_id: str, partition: int) -> str:
    """Return the name of the `txn` that holds the watermark of a topic-partition."""
    return f"{WATERMARK_PREFIX}{topic_id}:{partition}"


def table_watermark(txns: Mapping[str, int], topic_id: str, partitions: int) -> int | None:
    """Return a table's watermark in ms, from the `txn`s of one of its versions; None while it has none.

    It has none until the collection's snapshot is complete and every partition has been read beyond it.
    """
    each = [txns.get(watermark_id(topic_id, partition), -1) for partition in range(partitions)]
    return min(each) if each and min(each) >= 0 else None


def version_as_of(store: ObjectStore, time_ms: int) -> AsOf:
    """Find the newest version of the table at the root of `store` whose watermark is not later than `time_ms`.

    Lists the log's two ends and reads O(log n) entries of it. A table that was restored has had some watermarks twice:
    then either version may be found. Lets the store's errors through.

    Raises:
        NoSuchMoment: there is no table, it had no watermark by then, or its log no longer goes back so far.
        Fatal: the log lacks an entry that it must have.
    """
    log = _Watermarks(store)
    later = bisect_left(log.versions, True, key=lambda version: (log.at(version) or 0) > time_ms)
    for version in reversed(log.versions[:later]):
        if (watermark_ms := log.at(version)) is not None and watermark_ms <= time_ms:
            return AsOf(version, watermark_ms)
    raise NoSuchMoment(_why_not(log, later, time_ms))


class _Watermarks:
    """The watermarks of a table's versions, read when asked for."""

    def __init__(self, store: ObjectStore) -> None:
        self._log = DeltaLog(store)
        self._known: dict[int, int | None] = {}
        self.versions = self._log.readable_versions()

    def at(self, version: int) -> int | None:
        """Return a version's watermark; None when it has none. An entry of another program leaves it as it was."""
        asked = version
        while version not in self._known:
            info = self._commit_info(version)
            if _WRITER_KEY in info or version <= self.versions.start:
                told = info.get(COMMIT_INFO_KEY)
                self._known[version] = None if told is None else int(told)  # delta-rs writes numbers as text
            else:
                version -= 1
        self._known |= dict.fromkeys(range(version + 1, asked + 1), self._known[version])
        return self._known[version]

    def _commit_info(self, version: int) -> Mapping[str, Any]:
        entry = self._log.read_entry(version)
        if entry is None:
            raise Fatal(
                f"the table's log lacks {entry_path(version)}, although version {self.versions[-1]} exists; unless log "
                "clean-up has deleted it just now (then ask again), the table is damaged"
            )
        return next((action.commit_info for action in entry if action.commit_info is not None), {})


def _why_not(log: _Watermarks, later: int, time_ms: int) -> str:
    if not log.versions:
        return "there is no Delta table here"
    if later == len(log.versions):
        return (
            "the table has no watermark yet: its snapshot is not complete, or the delta-writer cannot tell the "
            "source's time (see its log)"
        )
    first = log.versions[later]
    since = _shown(log.at(first) or 0)
    if log.versions.start > 0:
        return (
            f"the table cannot go back further than {since} (version {first}), to {_shown(time_ms)}: vacuum has "
            "deleted what was before"
        )
    return f"the table had no watermark before {since} (version {first}); {_shown(time_ms)} lies before that"


def _shown(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
