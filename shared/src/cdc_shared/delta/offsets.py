"""Kafka offsets as the table records them: what makes a batch exactly once (DESIGN: "Exactly once, fenced").

The offsets of a table are its `txn` actions: `cdc:<topic id>:<partition>` is the next offset to read. Kafka's own
committed offset is only a hint. The topic's *id* is used, not its name, so that a topic made again starts again.

Two more are kept in the same way: `cdc-wm:…`, the source time in ms strictly before which everything of the partition
is in (the watermark), and `cdc-swept:…`, the offset up to which a completed snapshot was swept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cdc_shared.delta import time_travel
from cdc_shared.delta.positions import OFFSET_PREFIX, offset_id
from cdc_shared.errors import CdcError, ResyncNeeded

_SWEPT_PREFIX: Final = "cdc-swept:"
CLOSED: Final = 2**63 - 1
"""The next offset of a topic that a resync has left behind: no batch of it can follow."""


class Fenced(CdcError):
    """The table does not stand where the batch begins: somebody else wrote, or the batch is a replay.

    The batch must be dropped and its partitions read again from where the table says.
    """


class StaleRules(Fenced):
    """All rows of the table have the masks of newer rules than those that this writer has heard of.

    Reading again helps once the newer rules are in force here.
    """


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Offsets from `start` up to, not including, `end`; gaps (transaction markers) belong to it."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ChangeTopic:
    """One incarnation of a change topic: `topic_id` is Kafka's id, which differs after the topic is made again."""

    name: str
    topic_id: str
    partitions: int


def app_id(topic: ChangeTopic, partition: int) -> str:
    """Return the name under which a table records the offset of a topic-partition."""
    return offset_id(topic.topic_id, partition)


def watermark_id(topic: ChangeTopic, partition: int) -> str:
    """Return the name under which a table records the watermark of a topic-partition, in ms of source time."""
    return time_travel.watermark_id(topic.topic_id, partition)


def swept_id(topic: ChangeTopic, partition: int) -> str:
    """Return the name under which a table records that a completed snapshot swept the rows before an offset.

    `partition` counts from the table's base, as rows do.
    """
    return f"{_SWEPT_PREFIX}{topic.topic_id}:{partition}"


def is_offset(name: str) -> bool:
    """Tell whether a `txn` is the next offset of a topic-partition."""
    return name.startswith(OFFSET_PREFIX)


def is_ours(name: str) -> bool:
    """Tell whether a `txn` is one of this platform's three kinds, of whatever topic."""
    return name.startswith((OFFSET_PREFIX, time_travel.WATERMARK_PREFIX, _SWEPT_PREFIX))


def check_fence(txns: Mapping[str, int], topic: ChangeTopic, ranges: Mapping[int, OffsetRange]) -> None:
    """Check that the table stands exactly where each range begins.

    Raises:
        Fenced: it stands elsewhere.
    """
    for partition, offsets in ranges.items():
        stands_at = txns.get(app_id(topic, partition), 0)
        if stands_at != offsets.start:
            raise Fenced(
                f"{topic.name}[{partition}]: the batch begins at {offsets.start}, the table stands at {stands_at}"
            )


def start_offset(txns: Mapping[str, int], topic: ChangeTopic, partition: int, low: int, high: int) -> int:
    """Return the offset to read next, given the offsets that Kafka still holds: from `low` up to, not with, `high`.

    Raises:
        ResyncNeeded: Kafka no longer holds what comes next, or the topic is another one than the table was filled from.
    """
    where = f"{topic.name}[{partition}]"
    stands_at = txns.get(app_id(topic, partition))
    if stands_at is None and any(is_offset_of_another_topic(name, topic) and at < CLOSED for name, at in txns.items()):
        raise ResyncNeeded(
            f"resync needed: topic {topic.name} was deleted and made again (its id is now {topic.topic_id}), so "
            f"changes may be missing; {resync_remedy(topic.name)}"
        )
    next_offset = stands_at or 0
    if next_offset < low:
        raise ResyncNeeded(
            f"resync needed: the table needs {where} from offset {next_offset}, but Kafka's retention has dropped "
            f"everything before {low}; {resync_remedy(topic.name)}"
        )
    if next_offset > high:
        raise ResyncNeeded(
            f"resync needed: the table has read {where} up to offset {next_offset}, but Kafka holds only {high}: "
            f"the topic lost records; {resync_remedy(topic.name)}"
        )
    return next_offset


def resync_remedy(topic: str) -> str:
    """Return what to do when Kafka no longer has what comes next in a change topic: `<pipeline>.…`."""
    return f"run `delta-writer resync {topic.partition('.')[0]}`"


def is_offset_of_another_topic(name: str, topic: ChangeTopic) -> bool:
    """Tell whether a `txn` is the next offset of another topic, or of this one before it was made again."""
    return name.startswith(OFFSET_PREFIX) and not name.startswith(f"{OFFSET_PREFIX}{topic.topic_id}:")
