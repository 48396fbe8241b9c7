"""What Debezium tells of its snapshots, and what follows from it.

Measured with Debezium 3.6.1 (docs/adr/0010-snapshot-sweep.md): every snapshot, initial or asked for by a signal, is
told as an "Initial Snapshot": STARTED, then for each collection IN_PROGRESS and TABLE_SCAN_COMPLETED, then COMPLETED. A
connector that goes on from its offsets says SKIPPED. One that is killed says nothing: its attempt is over when the next
record is STARTED or SKIPPED.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

_AGGREGATE: Final = "Initial Snapshot"
_SCANNED_WHOLE: Final = frozenset({"SUCCEEDED", "EMPTY"})


class NotificationKind(StrEnum):
    """What happened to a snapshot."""

    STARTED = "STARTED"
    IN_PROGRESS = "IN_PROGRESS"
    TABLE_SCAN_COMPLETED = "TABLE_SCAN_COMPLETED"
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification.

    Attributes:
        offset: where it lies in the notification topic.
        at_ms: when it was made, by the Connect worker's clock.
        collection: `database.collection`, for those of one collection.
        scanned_whole: for TABLE_SCAN_COMPLETED: nothing of the collection was left out.
    """

    offset: int
    at_ms: int
    kind: NotificationKind
    collection: str | None = None
    scanned_whole: bool = False


@dataclass(slots=True)
class SnapshotAttempt:
    """One attempt at a snapshot.

    Attributes:
        started_offset: where its STARTED lies in the notification topic: what identifies and orders attempts.
        started_ms: when it began, by the worker's clock; its first record came later by the same clock.
        collections: those that it has begun, as `database.collection`.
        whole: those that it has read to the end.
    """

    started_offset: int
    started_ms: int
    collections: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)


class SnapshotHistory:
    """What the notifications so far amount to. `add` them in their order."""

    def __init__(self) -> None:
        self.open: SnapshotAttempt | None = None
        """The attempt that is under way, or whose connector has not been heard of since."""
        self._completed: dict[str, SnapshotAttempt] = {}
        self._streaming = False

    def add(self, notification: Notification) -> None:
        """Take in the next notification."""
        match notification.kind:
            case NotificationKind.STARTED:
                self.open = SnapshotAttempt(notification.offset, notification.at_ms)
            case NotificationKind.IN_PROGRESS if self.open and notification.collection:
                self.open.collections.add(notification.collection)
            case NotificationKind.TABLE_SCAN_COMPLETED if self.open and notification.collection:
                if notification.scanned_whole:
                    self.open.whole.add(notification.collection)
            case NotificationKind.COMPLETED if self.open:
                self._completed |= dict.fromkeys(self.open.whole, self.open)
                self.open, self._streaming = None, True
            case NotificationKind.SKIPPED:
                self.open, self._streaming = None, True
            case NotificationKind.ABORTED:
                self.open = None

    def last_completed(self, collection: str, since: int | None = None) -> SnapshotAttempt | None:
        """Return the last completed attempt that holds the collection; with `since`, if it began there or later.

        `since` is an offset of the notification topic.
        """
        attempt = self._completed.get(collection)
        return None if attempt is None or attempt.started_offset < (since or 0) else attempt

    def is_complete(self, collection: str, since: int | None = None) -> bool:
        """Tell whether the stream and completed snapshots together have told everything of the collection.

        A collection that no snapshot names was made after them, so the stream has told of it from its beginning. With
        `since`, the stream has a gap before it: only a snapshot begun there or later makes up for it.
        """
        if self.open is not None:
            return False
        return self._streaming if since is None else self.last_completed(collection, since) is not None


class _Value(msgspec.Struct):
    aggregate_type: str
    type: str
    timestamp: int
    additional_data: dict[str, str] | None = None


_DECODER: Final = msgspec.json.Decoder(_Value)


def decode_notification(value: bytes | None, offset: int) -> Notification | None:
    """Return the notification that a record holds; None for one of another kind, or unreadable: it changes nothing."""
    try:
        read = _DECODER.decode(value or b"")
        kind = NotificationKind(read.type)
    except (msgspec.MsgspecError, ValueError):
        return None
    if read.aggregate_type != _AGGREGATE:
        return None
    data = read.additional_data or {}
    return Notification(
        offset,
        read.timestamp,
        kind,
        data.get("current_collection_in_progress") or data.get("scanned_collection"),
        data.get("status") in _SCANNED_WHOLE,
    )
