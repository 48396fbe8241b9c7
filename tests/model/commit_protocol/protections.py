"""What the protocol's promises rest on. The checker takes each away in turn, and must then find what breaks."""

from __future__ import annotations

from enum import Enum


class Protection(Enum):
    """Each value says what the code does."""

    FENCE = "a batch is put only where the table stands (offsets.check_fence)"
    PUT_IF_ABSENT = "an entry is never put over another one (DeltaLog.append)"
    OWN_COMMITS = "an entry of one's own that landed unheard is recognised by its id (DeltaWriter._catch_up)"
    CATCH_UP = "after a conflict what others wrote is read before the next attempt (DeltaWriter._until_landed)"
    PLAN_ANEW = "after a conflict vectors are worked out again on what others wrote (DeletionVectorWriter._write)"
    LOOK_WHEN_OLD = "a writer that slept looks at the table before it writes (MAX_SNAPSHOT_AGE_S)"
    AGE_OF_WHAT_WAS_READ = "a view stays as old as it was until it has been read anew (DeltaWriter.reload)"
    LOOK_AGAIN = "a look that was cut short is finished before the next write (_must_look in DeltaWriter._catch_up)"
    INDEX_FOLLOWS = (
        "an index that could not be brought up to a view is, before it is used (DeletionVectorWriter._follow)"
    )
    SCHEMA_CHECK = "a batch that was encoded for another schema is encoded again (SchemaMoved)"
    SEEK_BACK = "what is dropped is read again (Pipeline._revoked, _read_again)"
    SKIP_READ = "a record that a batch holds already is not taken again (BatchProcessor.add)"
    CARRY_OVER = "rows deleted since a rewrite was prepared are deleted in its outputs (replace_files)"
    MOVED_CHECK = "what was prepared for a file that another rewrite took away is prepared again (RowsMoved)"
    RESTORE_CHECK = "what was prepared before a restore brought rows back is prepared again (RowsMoved)"
    SWEEP_ROWS = "a sweep deletes the rows that it found, not their keys (RowDeletion.rows)"
    SWEEP_AFTER_SNAPSHOT = "a sweep looks for rows once the whole snapshot is in the table"


ALL = frozenset(Protection)


def without(*missing: Protection) -> frozenset[Protection]:
    """Everything but these."""
    return ALL - frozenset(missing)
