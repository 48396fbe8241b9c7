"""Purge: every version before one is deleted for good, with all files that only those named.

For values that nobody may read any more. Vacuum would take them too, when the retention has passed; this does it now,
and what vacuum does not look at as well: log entries and checkpoints hold the lowest and highest values of columns.
Readers that are at an older version fail, and time travel begins anew. Whoever keeps versions of objects or backups of
the lake has to delete them there.

No commit under way loses its upload: a batch in hand when the table was masked is uploaded anew
(`DeltaWriter.upload_era`), a rewrite of files is dropped, and what was uploaded later than the version is kept.
"""

from collections.abc import Callable

import obstore
from obstore.store import ObjectStore

from cdc_shared.delta.log import DeltaLog, entry_path
from cdc_shared.delta.oldest_version import announce_oldest_version
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.retention import RetainedLog, Retention, log_files
from delta_writer.maintenance.vacuum import Deleted, clean_up_log, vacuum


def purge(
    store: ObjectStore, version: int, write_checkpoint: Callable[[int], None], budget: Budget
) -> tuple[Deleted, Deleted]:
    """Delete all that only versions before `version` name, data first; return what of data and what of the log.

    It is an old version no longer needed as well that is older than the newest checkpoint. May be stopped at any
    moment and repeated.

    Raises:
        Stopped: the budget's stop event was set.
    """
    try:
        at = obstore.head(store, entry_path(version))["last_modified"].timestamp()
    except FileNotFoundError:  # deleted by a clean-up since, and what is older with it
        return Deleted(), Deleted()
    if (oldest := DeltaLog(store).last_checkpoint()) < version:
        write_checkpoint(version)  # else the entries before it are needed
        oldest = version
    announce_oldest_version(store, version)
    expired = tuple(file for file, *_ in log_files(store) if file.version < oldest)
    retained = RetainedLog(oldest, at, expired)
    return vacuum(store, retained, Retention(0.0, 0.0), budget), clean_up_log(store, retained, budget)
