"""Compaction of a copy-on-write table: delta-rs's OPTIMIZE, in which whoever commits second gives way.

MERGE rewrites every file that it touches, so these tables collect small files from inserts alone, and a compaction of
ours that carried changes over would have nothing to carry them in: there are no vectors. A MERGE that is overtaken is
done again by the writer; a compaction that is overtaken is dropped.
"""

import json
import time
from collections.abc import Collection
from typing import Final

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.table_location import TableLocation
from delta_writer.maintenance.budget import Budget

MIN_SMALL_FILES: Final = 32
"""All small files are put together each time, so that more must come before it is worth it than with tiers."""


def compact_copy_on_write(
    location: TableLocation, version: int, files: Collection[AddFile], target_bytes: int, budget: Budget
) -> bool:
    """Put the small ones among `files`, the table's at `version`, together and commit; False when they are too few.

    Raises:
        CommitFailedError: another commit changed one of the files first. Nothing was changed.
        DeltaError: delta-rs could not.
        Stopped: it is done, and the budget's stop event was set.
    """
    if sum(file.size < target_bytes / 2 for file in files) < MIN_SMALL_FILES:
        return False
    started = time.monotonic()
    table = DeltaTable(location.url, version, storage_options=dict(location.storage_options))
    done = table.optimize.compact(
        target_size=target_bytes,
        max_concurrent_tasks=1,
        commit_properties=CommitProperties(max_commit_retries=0),
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
    )
    read, written = (json.loads(done[name])["totalSize"] for name in ("filesRemoved", "filesAdded"))
    budget.used(read=read, written=written, elsewhere_s=time.monotonic() - started)
    return True
