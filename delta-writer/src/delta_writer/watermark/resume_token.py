"""Source time by the connector's committed position, for a source that may not be written.

With exactly-once delivery a connector commits its position in the transaction of the records before it. So when Kafka
Connect shows a position, everything before it has been sent. In a quiet database the source moves the position on by
itself (a replica set writes to its oplog every 10 s), and Debezium's heartbeat commits it.
"""

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import bson

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import Fatal

_KEY_STRING_TIMESTAMP: Final = "82"
_TIMESTAMP_HEX_DIGITS: Final = 16


class ResumeTokenSource:
    """Asks Kafka Connect every `interval_s`. Not thread-safe."""

    def __init__(
        self,
        connector: str,
        connect: ConnectClient,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`clock` is monotonic, in seconds. `connect` is closed with this."""
        self._connector = connector
        self._connect = connect
        self._interval_s = interval_s
        self._sleep = sleep
        self._clock = clock
        self._due_at = clock()

    def next(self, timeout_s: float) -> int | None:
        """Return the time, in ms, strictly before which the connector has sent everything; None when it is not time.

        Raises `Transient` while Connect is away, `Fatal` when its answer cannot be used.
        """
        if (wait_s := self._due_at - self._clock()) > 0:
            self._sleep(min(wait_s, timeout_s))
            return None
        self._due_at = self._clock() + self._interval_s
        times = [
            resume_token_time_ms(offset["resume_token"])
            for offset in self._connect.offsets(self._connector)
            if streams(offset)
        ]
        return min(times, default=None)

    def close(self) -> None:
        """Disconnect."""
        self._connect.close()


def streams(offset: Mapping[str, Any]) -> bool:
    """Tell a position in the stream from one that a snapshot under way shows."""
    return "resume_token" in offset and not offset.get("initsync")


def resume_token_time_ms(token: str) -> int:
    """Return the source time that a resume token names, to the second, in ms: everything strictly before it is past.

    `token` is as Debezium keeps it: the token's BSON document in base64, or its `_data` alone. MongoDB's `_data` is a
    KeyString, in hex: the byte 0x82, then the cluster time's seconds and increment, four bytes each, big-endian. Other
    servers' is read when it is a BSON document, in hex, with one timestamp.

    Raises:
        Fatal: it is neither.
    """
    data = _data(token)
    try:
        (timestamp,) = (v for v in bson.decode(bytes.fromhex(data)).values() if isinstance(v, bson.Timestamp))
        return timestamp.time * 1000
    except (ValueError, bson.errors.BSONError):
        pass  # a KeyString is no BSON: its length, read from its first bytes, would be its time
    if data.startswith(_KEY_STRING_TIMESTAMP) and len(data) >= len(_KEY_STRING_TIMESTAMP) + _TIMESTAMP_HEX_DIGITS:
        return int(data[2:10], 16) * 1000
    raise Fatal("the connector's resume token names no time that is known here: set watermark.source: sentinel")


def _data(token: str) -> str:
    try:
        return str(bson.decode(base64.b64decode(token, validate=True))["_data"])
    except (ValueError, KeyError, bson.errors.BSONError):
        return token
