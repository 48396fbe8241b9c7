"""The three kinds of failure. Every error that the platform raises on purpose is one of them (DESIGN: "Failures").

The kind says what the caller must do, so callers catch kinds and never parse messages.
"""


class CdcError(Exception):
    """Base of every error raised on purpose."""


class Transient(CdcError):
    """May succeed when tried again: a store or broker that is away, a time-out.

    The caller retries with exponential, jittered back-off while the partition is paused. Nothing is dropped.
    """


class InvalidEvent(CdcError):
    """One event that can never be applied: bytes that are not JSON, an unknown operation, a key that does not parse.

    The caller sends the raw bytes to the dead-letter topic and goes on with the next event.
    """


class Fatal(CdcError):
    """Going on would lose, double or overwrite data: the pipeline stops and says what a person must do."""


class ResyncNeeded(Fatal):
    """Kafka no longer holds what the table still needs: only a new snapshot of the collection can make it whole."""
