"""Letting a table start anew where Kafka no longer has what comes next, without emptying it for its readers.

One commit moves the table's offsets to where reading can go on, moves up the base that `_cdc_partition` counts from, so
that rows of before are told from those that come, and notes which snapshot makes the table whole. Rows of before stay,
as stale as they are, until that snapshot has replaced or swept them. See docs/adr/0011-resync.md.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cdc_shared.delta.actions import Action, Transaction
from cdc_shared.delta.foreign_commits import ENGINE, CommitGuard
from cdc_shared.delta.log import DeltaLog, VersionTaken
from cdc_shared.delta.offsets import CLOSED, ChangeTopic, app_id, is_offset_of_another_topic, start_offset
from cdc_shared.delta.positions import PARTITION_BASE, partition_base
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import RESYNC_SINCE, TOPIC_PARTITIONS, TableIdentity, check_supported
from cdc_shared.errors import ResyncNeeded
from cdc_shared.storage.object_store import store_errors

OPERATION: Final = "CDC NEW START"

HeldOffsets = Mapping[int, tuple[int, int]]
"""Partition → the first offset that Kafka holds, and its end."""


@dataclass(frozen=True, slots=True)
class NewStart:
    """Why a table must start anew, and from which offset of each partition it then reads."""

    reason: str
    offsets: Mapping[int, int]


def plan_new_start(table: Snapshot, topic: ChangeTopic, held: HeldOffsets) -> NewStart | None:
    """Return where the table must start anew; None when reading can go on where it stands."""
    reason = _why(table, topic, held)
    if reason is None:
        return None
    if _partitions_of(table, topic) != topic.partitions:
        # Keys have moved between partitions: what lies in the topic is no longer in any key's order.
        return NewStart(reason, {p: held[p][1] for p in range(topic.partitions)})
    stands = {p: table.txns.get(app_id(topic, p), 0) for p in range(topic.partitions)}
    return NewStart(reason, {p: min(max(at, held[p][0]), held[p][1]) for p, at in stands.items()})


def new_start_actions(table: Snapshot, topic: ChangeTopic, start: NewStart, resync_since: str) -> list[Action]:
    """Return the log entry that puts `start` in force. `resync_since`: see `table_metadata.RESYNC_SINCE`."""
    assert table.metadata is not None  # nosec B101 # only an existing table can need it
    now_ms = int(time.time() * 1000)
    properties = {
        PARTITION_BASE: str(partition_base(table.metadata) + _partitions_of(table, topic)),
        TOPIC_PARTITIONS: str(topic.partitions),
        RESYNC_SINCE: resync_since,
    }
    metadata = msgspec.structs.replace(table.metadata, configuration={**table.metadata.configuration, **properties})
    # Whoever still has a batch of the old topic in hand is fenced.
    txns = {name: CLOSED for name in table.txns if is_offset_of_another_topic(name, topic)}
    txns |= {app_id(topic, partition): offset for partition, offset in start.offsets.items()}
    info = {
        "timestamp": now_ms,
        "operation": OPERATION,
        "operationParameters": {"reason": start.reason},
        "engineInfo": ENGINE,
        "txnId": str(uuid.uuid4()),
        "cdcTopic": topic.name,
        "cdcRanges": {},
    }
    return [
        Action(commit_info=info),
        Action(meta_data=metadata),
        *(Action(txn=Transaction(name, version, now_ms)) for name, version in txns.items()),
    ]


def start_anew(
    location: TableLocation,
    identity: TableIdentity,
    mode: str,
    topic: ChangeTopic,
    held: HeldOffsets,
    resync_since: str,
) -> NewStart | None:
    """Have the table start anew if it must; None, and nothing written, when it need not or does not exist.

    May be repeated, also after a `Transient` whose commit had succeeded. The connector must be stopped when the number
    of partitions has changed: its producer learns of that only when it starts.

    Raises:
        Fatal: the table is not this collection's, or another program has changed its rows.
    """
    log = DeltaLog(location.store)
    while True:
        with store_errors(f"reading the log of {location.url}"):
            table = log.load()
            if table.metadata is None:
                return None
            check_supported(table, identity, mode, _partitions_of(table, topic), location.url)
            CommitGuard(location.url, location.store, identity, mode).check_newest(log, table)
        start = plan_new_start(table, topic, held)
        if start is None:
            return None
        try:
            with store_errors(f"committing to {location.url}"):
                log.append(table.version + 1, new_start_actions(table, topic, start, resync_since))
            return start
        except VersionTaken:
            continue


def _why(table: Snapshot, topic: ChangeTopic, held: HeldOffsets) -> str | None:
    """Return why reading cannot go on where the table stands; None when it can."""
    before = _partitions_of(table, topic)
    if before != topic.partitions:
        return f"topic {topic.name} had {before} partitions and now has {topic.partitions}"
    try:
        for partition in range(topic.partitions):
            start_offset(table.txns, topic, partition, *held[partition])
    except ResyncNeeded as needed:
        return str(needed).removeprefix("resync needed: ").partition(";")[0]
    return None


def _partitions_of(table: Snapshot, topic: ChangeTopic) -> int:
    """Return how many partitions the topic had by the table's own account."""
    if table.metadata is None:
        return topic.partitions
    return int(table.metadata.configuration.get(TOPIC_PARTITIONS, topic.partitions))
