"""The filter rule: which documents belong to the pipeline."""

from dataclasses import dataclass
from typing import Any

from cdc_shared.rules.batch import Batch
from cdc_shared.rules.field_values import Mask
from cdc_shared.rules.sql_check import SqlCheck


@dataclass(frozen=True)
class FilterCheck:
    """A document fails when the expression is false or NULL, as in SQL's WHERE.

    Where the expression cannot be evaluated (a cast that fails) the document passes: it may belong to the pipeline, and
    a row too many is seen, while one too few is not.
    """

    excluded: SqlCheck
    """Passes for the documents that are known not to match."""
    failure: str = "does not match"

    @classmethod
    def of(cls, text: str) -> "FilterCheck":
        """Raises RefusedExpression, with the reason, for a text that is no expression that a rule may have."""
        SqlCheck.of(text)  # alone: within the other expression it might be one by accident
        return cls(SqlCheck.of(f"NOT coalesce(({text}\n), false)"))

    def passes(self, document: Any) -> bool:
        return not self.excluded.passes(document)

    def failing(self, batch: Batch) -> Mask:
        """The rows that fail. Those that are not open may be wrong."""
        return ~self.excluded.failing(batch)
