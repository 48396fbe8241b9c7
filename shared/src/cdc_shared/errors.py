"""The three kinds of failure. Every error that the platform raises on purpose is one of them (DESIGN: "Failures").

The kind says what the caller must do, so callers catch kinds and never parse messages.

What is told of any other error, which is a library's or a fault of ours, is `shown`: messages of pyarrow, DuckDB and
Python's own conversions quote the value that they stumble over, and values of documents are in no log and no status.
"""

import re
import traceback
from typing import Final

_OURS: Final = frozenset({"cdc_shared", "control_plane", "delta_writer", "reconciliation"})
_ABOUT_SYSTEMS: Final = frozenset({"_internal.DeltaError", "obstore.exceptions.BaseError", "cimpl.KafkaException"})
"""Libraries' classes of errors, by name because not every service has them, which speak of files, stores, brokers."""
_OF_VALUES: Final = re.compile(r"\b(cast|parser|compute) error\b", re.IGNORECASE)
"""What arrow-rs says inside of an error of delta-rs before it quotes a value."""


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


def may_be_shown(error: BaseException) -> bool:
    """Tell whether an error's message cannot hold values of documents: one raised on purpose, or about a system."""
    if isinstance(error, (CdcError, OSError)):
        return True
    names = {f"{each.__module__}.{each.__name__}" for each in type(error).__mro__}
    return not names.isdisjoint(_ABOUT_SYSTEMS) and _OF_VALUES.search(str(error)) is None


def shown(error: BaseException) -> str:
    """Return an error's message where it may be shown, else its type and the place in our code where it arose."""
    if may_be_shown(error):
        return str(error)
    text = f"unexpected {type(error).__name__}"
    frames = [
        (frame.f_globals.get("__name__", "?"), line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    ours = [each for each in frames if each[0].partition(".")[0] in _OURS]
    for module, line, function in (ours or frames)[-1:]:
        text += f" at {module}:{line} ({function})"
    return text
