"""How far a snapshot is: what the connector has told of it, against what the topics hold and the source has.

Debezium's MongoDB connector tells of collections and counts no documents (3.6.1). While it reads a collection nothing
else comes to its topic, so the records there since the attempt began are the documents that it has read; transaction
markers count among them, 6 to 30,000 documents as measured.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cdc_shared.snapshots.notifications import SnapshotAttempt

MAX_PERCENT_UNDER_WAY: Final = 99.9


class SnapshotState(StrEnum):
    """Of the last snapshot that was begun."""

    RUNNING = "running"
    """Or its connector has not been heard of since."""
    COMPLETED = "completed"
    """The connector has sent all of it."""
    ABANDONED = "abandoned"
    """It ended before that, and no other one has begun yet."""


class CollectionState(StrEnum):
    WAITING = "waiting"
    READING = "reading"
    READ = "read"


@dataclass(frozen=True, slots=True)
class CollectionProgress:
    """One collection: about how many documents were read, and of how many (None: the source has not said)."""

    collection: str
    state: CollectionState
    documents: int
    total: int | None


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """The snapshot of one pipeline. Counts are about right; None is not known.

    Attributes:
        started_ms, completed_ms: by the Connect worker's clock.
        collections: those that it has begun, and those that it is expected to read; none once it has completed.
        documents_per_s: lately; `seconds_left` follows from it.
    """

    state: SnapshotState
    started_ms: int
    completed_ms: int | None = None
    collections: tuple[CollectionProgress, ...] = ()
    documents: int | None = None
    total: int | None = None
    percent: float | None = None
    documents_per_s: float | None = None
    seconds_left: float | None = None


def progress_of(
    attempt: SnapshotAttempt,
    database: str,
    sent: Mapping[str, int],
    totals: Mapping[str, int] | None,
    expected: Iterable[str] | None,
    documents_per_s: float | None,
) -> SnapshotProgress:
    """Return how far an attempt is that is under way.

    Args:
        sent: collection (here and below without the database) → the records in its topic since the attempt began.
        totals: the documents of each captured collection at the source; None when it has not said.
        expected: the collections that were asked for; None: all that are captured.
    """
    begun = {name.removeprefix(f"{database}.") for name in attempt.collections}
    whole = {name.removeprefix(f"{database}.") for name in attempt.whole}
    names = sorted(begun | set(totals or () if expected is None else expected))
    collections = tuple(_collection(each, begun, whole, sent.get(each, 0), totals) for each in names)
    documents = sum(each.documents for each in collections)
    totals_known = [each.total for each in collections if each.total is not None]
    if not collections or len(totals_known) < len(collections):
        return SnapshotProgress(
            SnapshotState.RUNNING, attempt.started_ms, None, collections, documents, documents_per_s=documents_per_s
        )
    total = sum(totals_known)
    left = (total - documents) / documents_per_s if documents_per_s and documents_per_s > 0 else None
    return SnapshotProgress(
        SnapshotState.RUNNING,
        attempt.started_ms,
        None,
        collections,
        documents,
        total,
        min(100 * documents / total, MAX_PERCENT_UNDER_WAY) if total else MAX_PERCENT_UNDER_WAY,
        documents_per_s,
        left,
    )


def _collection(
    name: str, begun: set[str], whole: set[str], sent: int, totals: Mapping[str, int] | None
) -> CollectionProgress:
    total = None if totals is None else totals.get(name)
    if name in whole:  # what was written and deleted meanwhile does not matter: it is through
        total = sent if total is None else total
        return CollectionProgress(name, CollectionState.READ, total, total)
    documents = sent if total is None else min(sent, total)
    if name not in begun:
        return CollectionProgress(name, CollectionState.WAITING, 0, total)
    return CollectionProgress(name, CollectionState.READING, documents, total)
