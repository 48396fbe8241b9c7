"""A model of the watermark: source, connector with its transactions, sentinel, ends of partitions, table.

Mirrors `delta_writer/watermark` and what it rests on (docs/adr/0012-watermark.md): a sentinel is seen in its topic,
then the ends of the partitions are read, each for itself; a commit that reaches an end carries the sentinel's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from commit_protocol.model import Violation

SENTINELS: Final = 2
"""The partition that the sentinel's changes go to; 0 and 1 are the table's."""
MARKER: Final = -1
ABORTED: Final = -2


class Change(NamedTuple):
    """An entry of the source's oplog. Of a sentinel, `tells` is the time that it carries."""

    time: int
    partition: int
    tells: int | None = None


OPLOG: Final = (
    Change(1, 0),
    Change(1, 1),
    Change(2, SENTINELS, tells=2),
    Change(2, 0),
    Change(3, SENTINELS, tells=3),
)


class Safeguard(Enum):
    """Each value says what the code does."""

    COMMITTED_ONLY = "a sentinel counts once its transaction is committed (SentinelSource)"
    ENDS_AFTER = "the ends are read after the sentinel was seen (WatermarkFeed._look)"
    OPEN_COUNTED = "records of open transactions lie before the end (written_ends)"
    STRICTLY = "the sentinel's own second is not claimed (everything strictly before T)"
    REACHED = "only a commit that reaches the end carries the time (Claims.reached)"


class Log(NamedTuple):
    """A partition: what lies at each offset (a position in the oplog, a marker, or what was aborted).

    Behind `stable` lies what the open transaction wrote.
    """

    records: tuple[int, ...] = ()
    stable: int = 0


class Connector(NamedTuple):
    """`done`: how much of the oplog is committed; `sent`: with what the open transaction wrote."""

    done: int = 0
    sent: int = 0
    ending: bool = False
    aborts: bool = False


class Claim(NamedTuple):
    """Everything of the partition before `time` lies before `end`."""

    partition: int
    end: int
    time: int


class State(NamedTuple):
    """`read`: how much of the sentinel's topic the writer has seen. `asking`: the time that it reads the ends of the
    `unasked` partitions for. `claims` are in its memory; `offsets` and `watermarks` are the table's, by partition.
    """

    logs: tuple[Log, ...] = (Log(), Log(), Log())
    connector: Connector = Connector()
    read: int = 0
    asking: int | None = None
    unasked: tuple[int, ...] = ()
    early_ends: tuple[int, ...] = ()
    claims: tuple[Claim, ...] = ()
    offsets: tuple[int, int] = (0, 0)
    watermarks: tuple[int, int] = (0, 0)

    def with_log(self, partition: int, log: Log) -> State:
        return self._replace(logs=(*self.logs[:partition], log, *self.logs[partition + 1 :]))


@dataclass(frozen=True)
class Watermarks:
    """The model; `on`: the safeguards that are in force."""

    on: frozenset[Safeguard] = frozenset(Safeguard)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that may happen next. Faults are named with a `!`."""
        yield from self._connector(state)
        yield from self._feed(state)
        yield from self._table(state)
        if len(OPLOG) - 1 not in state.logs[SENTINELS].records:  # later there is none to tell of a time again
            yield "! the writer starts anew", state._replace(claims=(), asking=None, unasked=(), early_ends=())

    def _connector(self, state: State) -> Iterator[tuple[str, State]]:
        at = state.connector
        if at.ending:
            for partition, log in enumerate(state.logs):
                if len(log.records) > log.stable:
                    yield f"marker in partition {partition}", _marked(state, partition)
            return
        if at.sent < len(OPLOG):
            partition = OPLOG[at.sent].partition
            log = state.logs[partition]
            written = state.with_log(partition, log._replace(records=(*log.records, at.sent)))
            yield f"change {at.sent} written", written._replace(connector=at._replace(sent=at.sent + 1))
        if at.sent > at.done:
            yield "transaction commits", state._replace(connector=at._replace(ending=True))
            if not any(ABORTED in log.records for log in state.logs):  # once: each makes the partitions longer
                killed = at._replace(ending=True, aborts=True)
                yield "! the connector is killed", state._replace(connector=killed)

    def _feed(self, state: State) -> Iterator[tuple[str, State]]:
        """`WatermarkFeed._look`: wait for a time, then read how far the partitions are written: in this order."""
        topic = state.logs[SENTINELS]
        readable = topic.stable if Safeguard.COMMITTED_ONLY in self.on else len(topic.records)
        if state.asking is None:
            for offset in range(state.read, readable):
                record = topic.records[offset]
                if record >= 0:
                    change = OPLOG[record]
                    time = change.tells if Safeguard.STRICTLY in self.on else change.time + 1
                    told = state._replace(read=offset + 1, asking=time, unasked=(0, 1))
                    yield f"sentinel of {change.tells} seen", told
                    break
        if Safeguard.ENDS_AFTER not in self.on and state.asking is None and not state.early_ends:
            yield "ends read beforehand", state._replace(early_ends=tuple(map(self._end, state.logs[:SENTINELS])))
        for partition in state.unasked:
            end = state.early_ends[partition] if state.early_ends else self._end(state.logs[partition])
            assert state.asking is not None
            left = tuple(each for each in state.unasked if each != partition)
            yield (
                f"end of partition {partition}: {end}",
                state._replace(
                    claims=tuple(sorted({*state.claims, Claim(partition, end, state.asking)})),
                    unasked=left,
                    asking=state.asking if left else None,
                    early_ends=state.early_ends if left else (),
                ),
            )

    def _end(self, log: Log) -> int:
        return len(log.records) if Safeguard.OPEN_COUNTED in self.on else log.stable

    def _table(self, state: State) -> Iterator[tuple[str, State]]:
        """A commit of all that can be read of a partition; it carries the newest time that it reaches."""
        for partition in (0, 1):
            end, watermark = state.logs[partition].stable, state.watermarks[partition]
            reached = [
                claim.time
                for claim in state.claims
                if claim.partition == partition and (claim.end <= end or Safeguard.REACHED not in self.on)
            ]
            time = max([watermark, *reached])
            if (end, time) != (state.offsets[partition], watermark):
                claims = tuple(each for each in state.claims if each.partition != partition or each.time > time)
                offsets = _with(state.offsets, partition, end)
                watermarks = _with(state.watermarks, partition, time)
                after = state._replace(claims=claims, offsets=offsets, watermarks=watermarks)
                yield f"table at {partition}:{end}, watermark {time}", after


def check(state: State) -> None:
    """Raise `Violation` unless everything strictly before each watermark lies before the table's offset."""
    for partition in (0, 1):
        held = state.logs[partition].records[: state.offsets[partition]]
        for position, change in enumerate(OPLOG):
            if change.partition == partition and change.time < state.watermarks[partition] and position not in held:
                what = f"partition {partition} claims {state.watermarks[partition]}, change {position} is not in"
                raise Violation("I12", what)


def is_finished(state: State) -> bool:
    """Whether the last sentinel's time is claimed."""
    return min(state.watermarks) == 3


def _marked(state: State, partition: int) -> State:
    """One partition of the transaction gets its marker: transactions become visible partition by partition."""
    log, at = state.logs[partition], state.connector
    written = tuple(ABORTED if at.aborts else each for each in log.records[log.stable :])
    records = (*log.records[: log.stable], *written, MARKER)
    state = state.with_log(partition, Log(records, len(records)))
    if all(len(each.records) == each.stable for each in state.logs):
        done = at.done if at.aborts else at.sent
        state = state._replace(connector=Connector(done, done))
    return state


def _with(pair: tuple[int, int], place: int, value: int) -> tuple[int, int]:
    return (value, pair[1]) if place == 0 else (pair[0], value)
