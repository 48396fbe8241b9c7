"""Which versions of a table are kept readable, and what of its log they need.

A version is retained while it is younger than the retention, and so is the one that was in force when the retention
began: whoever asks for the table "as it was 30 days ago" gets it. Ages are told by the modification times of the log's
entries, as readers tell them, so one clock is compared with itself: the store's.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import obstore
from obstore.store import ObjectStore

from cdc_shared.delta.log import LOG_DIR, DeltaLog
from cdc_shared.delta.oldest_version import READERS_GRACE_S, announce_oldest_version, oldest_version

DAY_S: Final = 86_400.0
UPLOAD_GRACE_S: Final = DAY_S
"""Longest time from an upload to the commit that names it. Normally seconds; what could not be committed for hours is
uploaded anew (`batch_upload.MAX_UPLOAD_AGE_S`)."""

_LOG_FILE: Final = re.compile(r"_delta_log/(\d{20})\.(json|crc|checkpoint(?:\.\d{10}\.(\d{10}))?\.parquet)")


@dataclass(frozen=True, slots=True)
class Retention:
    """Attributes:
    versions_s: how long a version stays readable.
    upload_grace_s: how old an upload may be when it is named.
    readers_grace_s: how long after it was announced that a version is the oldest (`cdc_shared.delta.oldest_version`)
        what only older ones name is deleted: as long as whoever reads one may take.
    """

    versions_s: float
    upload_grace_s: float = UPLOAD_GRACE_S
    readers_grace_s: float = READERS_GRACE_S


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of the log."""

    path: str
    version: int
    size: int


@dataclass(frozen=True, slots=True)
class RetainedLog:
    """Attributes:
    oldest: the oldest retained version.
    oldest_at: when it came, in seconds since the epoch, by the store's clock.
    expired: what of the log no retained version needs: all before the newest whole checkpoint at or before `oldest`,
        and before the one that `_last_checkpoint` names, which readers begin with.
    """

    oldest: int
    oldest_at: float
    expired: tuple[LogFile, ...]


def deletable_log(store: ObjectStore, retention: Retention, now: float) -> RetainedLog | None:
    """Announce the oldest version that is retained from now on; return what was announced long enough ago to act on.

    None when there is no log, or what was announced last is too new: then nothing is announced either, so that it comes
    to be old enough however often this is called.
    """
    retained = retained_log(store, retention, now)
    if retained is None:
        return None
    before = oldest_version(store)
    if before is not None and now - before.at < retention.readers_grace_s:
        return None
    announce_oldest_version(store, retained.oldest)
    if not retention.readers_grace_s:
        return retained
    return None if before is None else retained_log(store, retention, now, before.version)


def retained_log(
    store: ObjectStore, retention: Retention, now: float, newest_oldest: float = math.inf
) -> RetainedLog | None:
    """List the log once; None when there is none. `now` is the wall clock, in seconds.

    No version later than `newest_oldest` is the oldest retained one, even if it might be by its age. Memory: what has
    expired since the last clean-up, and the checkpoints.
    """
    cutoff = now - retention.versions_s
    oldest: tuple[int, float] | None = None
    earliest: tuple[int, float] | None = None
    parts: dict[tuple[int, int], int] = {}
    old: list[LogFile] = []
    for file, kind, total, at in log_files(store):
        if kind == "json":
            earliest = min(earliest or (file.version, at), (file.version, at))
            if at <= cutoff and file.version <= newest_oldest:
                oldest = max(oldest or (file.version, at), (file.version, at))
        elif kind != "crc":
            parts[file.version, total] = parts.get((file.version, total), 0) + 1
        if at <= cutoff or kind not in ("json", "crc"):
            old.append(file)
    if earliest is None:
        return None
    version, at = oldest or earliest
    named = DeltaLog(store).last_checkpoint()
    checkpoint = max((v for (v, total), found in parts.items() if found == total and v <= version), default=-1)
    return RetainedLog(version, at, tuple(file for file in old if file.version < min(checkpoint, named)))


def log_files(store: ObjectStore) -> Iterator[tuple[LogFile, str, int, float]]:
    """Yield each file of the log with its kind, for a checkpoint the number of its parts, and its time."""
    for page in obstore.list(store, f"{LOG_DIR}/", chunk_size=1000):
        for item in page:
            match = _LOG_FILE.fullmatch(item["path"])
            if match is not None:
                file = LogFile(item["path"], int(match[1]), item["size"])
                yield file, match[2], int(match[3] or 1), item["last_modified"].timestamp()
