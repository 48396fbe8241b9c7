"""What is known of a pipeline's partitions: "everything strictly before source time T lies before offset E".

Such a claim is a fact of Kafka's log, whoever reads it and however often: a table that stands at E or beyond may carry
T. It is made by reading, *after* something proved that the connector has sent everything before T, how far each
partition is written (`partition_ends`). A partition that was not looked at then is in no claim, so nothing is ever
inherited: a topic made later gets the next one.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final, NamedTuple

MAX_PENDING_CLAIMS: Final = 1024
"""For each partition. A writer that is far behind drops every second one: those left lie further apart."""


class _Claim(NamedTuple):
    end: int
    time_ms: int


class Claims:
    """The claims that no table carries yet: for each partition a list that rises in both offset and time.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._pending: dict[str, dict[int, list[_Claim]]] = {}

    def add(self, topic: str, partition: int, end: int, time_ms: int) -> None:
        """Everything of the partition strictly before `time_ms` lies before offset `end`.

        When the source's time goes back (it was restored, say), claims of a later time no longer hold: what comes now
        may be older than they are.
        """
        pending = self._pending.setdefault(topic, {}).setdefault(partition, [])
        while pending and pending[-1].time_ms > time_ms:
            pending.pop()
        pending.append(_Claim(max(end, pending[-1].end) if pending else end, time_ms))
        if len(pending) > MAX_PENDING_CLAIMS:
            del pending[-2::-2]

    def reached(self, topic: str, partition: int, offset: int) -> int | None:
        """Return the newest time strictly before which everything of the partition lies before `offset`, in ms."""
        pending = self._pending.get(topic, {}).get(partition, [])
        below = bisect_right(pending, offset, key=lambda claim: claim.end)
        return pending[below - 1].time_ms if below else None

    def settle(self, topic: str, watermarks: Mapping[int, int]) -> None:
        """The table carries these times (by partition), or will not: claims up to them are done with."""
        for partition, time_ms in watermarks.items():
            claims = self._pending.get(topic, {}).get(partition, [])
            self._keep(topic, partition, [claim for claim in claims if claim.time_ms > time_ms])

    def forget(self, topic: str, partition: int) -> None:
        """Drop what is known of the partition: it may be another one under the same name."""
        self._keep(topic, partition, [])

    def topics(self) -> list[str]:
        """Return the topics that there are claims for."""
        return list(self._pending)

    def _keep(self, topic: str, partition: int, claims: list[_Claim]) -> None:
        partitions = self._pending.get(topic, {})
        if claims:
            partitions[partition] = claims
        else:
            partitions.pop(partition, None)
        if not partitions:
            self._pending.pop(topic, None)
