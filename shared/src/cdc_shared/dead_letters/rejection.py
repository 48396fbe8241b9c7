"""Why a record, or the document in it, is not applied, and what becomes of it."""

from dataclasses import dataclass
from enum import StrEnum

from cdc_shared.models.data_quality import OnFailure


class ReasonCode(StrEnum):
    """Stable names of what can be wrong: for metrics, filters and programs. The message beside it is for people."""

    MALFORMED_EVENT = "malformed_event"
    """The record is no change event."""
    UNDECODABLE_KEY = "undecodable_key"
    """The record's key names no document."""
    MALFORMED_DOCUMENT = "malformed_document"
    """The event's document is no document."""
    OVERSIZED_DOCUMENT = "oversized_document"
    """The document is larger than the pipeline, or MongoDB, allows."""
    VALIDATION_FAILED = "validation_failed"
    """The document does not pass a validation rule."""
    FILTERED = "filtered"
    """The document does not match a filter: nothing is wrong with it, and it has no row. Never a dead letter."""
    REREAD_REFUSED = "reread_refused"
    """A re-read request that can never be answered."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """`message` says in plain words what is wrong and holds nothing of the document.

    `policy` says what becomes of it; None leaves that to the pipeline's `dirty_data.policy`. `rule` names the
    validation rule, if it was one.
    """

    code: ReasonCode
    message: str
    policy: OnFailure | None = None
    rule: str | None = None
