"""A second way from a document and from its row to one text, for a sample of the keys: what finds a fault in the first.

The writer and `expected_rows` decode with the same code: a fault in it would make the same wrong row twice, and the
digests would agree. Here the document is read by the driver's own decoder (`bson.decode`) and changed by the rules'
document engine; the row is put together again from Python values. The two meet in the canonical form alone.
"""

from typing import Any, Final

import bson
import pyarrow as pa
from bson import CodecOptions
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError

from cdc_shared.documents import DocumentSchema, canonical_document, canonical_row, digest
from cdc_shared.documents.canonical import plain_value
from cdc_shared.rules.compiled import Rules
from reconciliation.reconciler.row_digest import RESCUED

_AS_IT_IS: Final = CodecOptions[dict[str, Any]](
    document_class=dict,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
)
_NO_DOCUMENT: Final = digest(b"")
"""Of a row whose columns hold what no document can (text that is no ObjectId): no canonical form is empty."""


def canonical_of_raw(raw: bytes, rules: Rules) -> bytes | None:
    """16 bytes that stand for the document after the rules.

    None where the driver's decoder does not give back all that is in the bytes, so that it cannot bear witness: a name
    twice, a symbol, undefined, a dbPointer, text that is not UTF-8.
    """
    try:
        document = bson.decode(raw, _AS_IT_IS)
        if bson.encode(document, codec_options=_AS_IT_IS) != raw:
            return None
    except (BSONError, ValueError, OverflowError, RecursionError):
        return None
    return digest(canonical_document(rules.transform_document(plain_value(document))))


def canonical_of_rows(table: pa.Table, schema: DocumentSchema) -> list[bytes]:
    """16 bytes for the document that each row holds: equal to those of `canonical_of_raw` when it is that document.

    `table` is as for `row_digests`.
    """
    return [_canonical_of_row(row, schema) for row in table.to_pylist()]


def _canonical_of_row(row: dict[str, Any], schema: DocumentSchema) -> bytes:
    try:
        return digest(canonical_row(row, schema, row[RESCUED]))
    except (BSONError, ValueError, ArithmeticError, TypeError, KeyError):
        return _NO_DOCUMENT
