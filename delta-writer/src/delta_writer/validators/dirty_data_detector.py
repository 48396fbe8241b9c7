"""Records that are no change of a document: malformed events, keys that name no document, documents beyond the size."""

from typing import Final

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import Envelopes, InvalidDocument, parse_document
from cdc_shared.documents.bson_size import MAX_GROWTH, bson_size, size_bound
from cdc_shared.models.data_quality import MONGODB_MAX_DOCUMENT_BYTES
from delta_writer.transformers.change_batch import ChangeEvents

MALFORMED_DOCUMENT: Final = ReasonCode.MALFORMED_DOCUMENT


def undecodable(envelopes: Envelopes) -> dict[int, Rejection]:
    """What is wrong with records whose envelope or key does not decode, by record."""
    return {
        row: Rejection(ReasonCode.UNDECODABLE_KEY if row in envelopes.bad_keys else ReasonCode.MALFORMED_EVENT, reason)
        for row, reason in envelopes.invalid.items()
    }


def oversized(events: ChangeEvents, max_document_size: int) -> dict[int, Rejection]:
    """The documents of more than `max_document_size` bytes of BSON, by event.

    What MongoDB itself would not hold is a dead letter whatever the policy says. Only texts long enough to be at fault
    are looked into.
    """
    limit = min(max_document_size, MONGODB_MAX_DOCUMENT_BYTES)
    suspicious = limit // MAX_GROWTH
    found = {}
    for i, text in enumerate(events.documents):
        if text is None or len(text) <= suspicious or size_bound(text) <= limit:
            continue
        try:
            size = bson_size(parse_document(text))
        except InvalidDocument:
            continue  # the decoder says what is wrong with it
        if size > limit:
            found[i] = _oversized(size, limit)
    return found


def malformed_documents(invalid: dict[int, str]) -> dict[int, Rejection]:
    """What the decoder said of documents, by event."""
    return {i: Rejection(MALFORMED_DOCUMENT, reason) for i, reason in invalid.items()}


def _oversized(size: int, limit: int) -> Rejection:
    if size > MONGODB_MAX_DOCUMENT_BYTES:
        message = f"the document has {size:,} bytes in BSON, more than the {MONGODB_MAX_DOCUMENT_BYTES:,} of MongoDB"
        return Rejection(ReasonCode.OVERSIZED_DOCUMENT, message, "dlq")
    message = f"the document has {size:,} bytes in BSON, more than the {limit:,} that max_document_size allows"
    return Rejection(ReasonCode.OVERSIZED_DOCUMENT, message)
