"""What is said of one key that is not plainly equal."""

from dataclasses import dataclass
from enum import StrEnum

from cdc_shared.models.reconciliation import DifferenceKind


class How(StrEnum):
    """In what way a field differs."""

    VALUE = "value"
    TYPE = "type"
    """Both have a value, of different kinds: a text for a number."""
    ONLY_IN_SOURCE = "only_in_source"
    ONLY_IN_TABLE = "only_in_table"


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field: a JSON Pointer in the document's own names, as in `_cdc_rescued`; "" is the whole document."""

    pointer: str
    how: How


@dataclass(frozen=True, slots=True)
class Difference:
    """One key, and what is wrong with it or why it only seems so.

    Attributes:
        key: `_cdc_key` as the table has it, so of a masked `_id` its HMAC; "" for rows that have no key.
        source_key: key text of the document's own `_id`, for repair; None where it cannot be known.
        fields: where row and document differ; none unless there are both.
        document, row: as Extended JSON after the pipeline's rules, so masked; None when there is none, or it is not to
            be shown: `explanation` says so. Long ones are cut down to the fields that differ.
        rules_version: of the rules that made the row; None without a row.
        rows: how many the table has of the key.
        explanation: what it is and what to do, in plain words without anything of the document.
    """

    key: str
    source_key: str | None
    kind: DifferenceKind
    fields: tuple[FieldDifference, ...] = ()
    document: str | None = None
    row: str | None = None
    rules_version: int | None = None
    rows: int = 0
    explanation: str = ""
