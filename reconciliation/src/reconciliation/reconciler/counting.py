"""Mode counts: how many documents and how many rows there are; what that proves, and what it does not."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cdc_shared.models.reconciliation import DifferenceKind, Outcome
from reconciliation.reconciler.counts import count_rows
from reconciliation.reconciler.progress import Control
from reconciliation.reconciler.sides import Sides
from reconciliation.sources.changed_keys import PositionsGone
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.mongodb_reader import MongodbReader

POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Counted:
    """Both numbers.

    Attributes:
        exact: the documents were counted, not taken from what the source has noted down.
        changed: keys of events between the two counts; None when that cannot be told.
        table: in which version the rows were counted; None when the writer did not come as far as the documents.
    """

    documents: int
    exact: bool
    rows: int = 0
    changed: int | None = None
    table: PinnedTable | None = None

    def verdict(self, *, rows_may_be_left_out: bool) -> tuple[Outcome, dict[DifferenceKind, int], str]:
        """What the numbers say: outcome, how many are missing or too many, and a sentence.

        `rows_may_be_left_out`: rules or dead letters keep documents from having a row.
        """
        if self.table is None:
            return Outcome.UNDECIDED, {}, "The writer did not come as far as the source was counted: see how it lags."
        difference = self.documents - self.rows
        changed = self.changed or 0
        if difference == 0:
            return Outcome.EQUAL, {}, "There are as many rows as documents. What they hold was not compared."
        if self.changed is None or not self.exact or abs(difference) <= changed:
            why = "the documents were not counted, only estimated" if not self.exact else "documents changed meanwhile"
            return Outcome.UNDECIDED, {}, f"The numbers differ by {abs(difference):,}, and {why}: use mode keys."
        if difference > 0 and rows_may_be_left_out:
            text = f"{difference:,} documents have no row; the pipeline's rules may want that: use mode keys."
            return Outcome.UNDECIDED, {}, text
        kind = DifferenceKind.MISSING if difference > 0 else DifferenceKind.EXTRA
        # So many at least: what changed meanwhile may have gone either way.
        return Outcome.DIFFERENCES, {kind: abs(difference) - changed}, "Mode full, or keys, tells which ones."


def count_both(
    sides: Sides,
    reader: MongodbReader,
    timeout_s: float,
    control: Control,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Counted:
    """Count documents, wait until the table has come as far, and count its rows. Raises as what is asked does."""
    before = sides.events.ends()
    counted = reader.count()
    read_ms = reader.operation_time().time * 1000
    deadline = clock() + timeout_s
    while (table := sides.pin()).watermark_ms is None or table.watermark_ms <= read_ms:
        if clock() >= deadline:
            return Counted(counted.documents, counted.exact)
        control.check()
        sleep(POLL_S)
    try:
        changed: int | None = len(sides.events.keys_between(before, table.positions))
    except PositionsGone:
        changed = None
    return Counted(counted.documents, counted.exact, count_rows(table), changed, table)
