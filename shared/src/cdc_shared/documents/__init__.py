"""MongoDB documents, as Debezium writes them, to Arrow columns: no value is lost or altered without a word.

`decode_envelopes` takes Kafka messages apart, `decode` makes columns of the documents, `to_delta_schema` and
`from_delta_schema` keep their types in the table, and `canonical_document` and `canonical_row` say when a row holds a
document.
"""

from cdc_shared.documents.bson_text import InvalidBson, document_key, document_text
from cdc_shared.documents.canonical import canonical_document, canonical_row, digest, document_of_row, equal
from cdc_shared.documents.conversion import NotExact, convert_column
from cdc_shared.documents.decoder import Decoded, DecodeStats, decode
from cdc_shared.documents.delta_schema import (
    cdc_columns,
    from_delta_schema,
    has_soft_deletes,
    parquet_schema,
    to_delta_schema,
)
from cdc_shared.documents.envelope import DELETE, REREAD, Envelopes, Replay, decode_envelopes, event_key
from cdc_shared.documents.extended_json import InvalidDocument, dump, parse, parse_document
from cdc_shared.documents.fitting import fit, fit_exactly, widened
from cdc_shared.documents.inference import infer
from cdc_shared.documents.key_text import key_text, key_value
from cdc_shared.documents.pointers import pointer_names, pointer_to, pointer_token
from cdc_shared.documents.policies import FieldPolicies
from cdc_shared.documents.types import DocumentSchema, Field
from cdc_shared.documents.walker import WalkedRows, walk_documents
from cdc_shared.documents.wider_types import type_wide_enough

__all__ = [
    "DELETE",
    "REREAD",
    "DecodeStats",
    "Decoded",
    "DocumentSchema",
    "Envelopes",
    "Field",
    "FieldPolicies",
    "InvalidBson",
    "InvalidDocument",
    "NotExact",
    "Replay",
    "WalkedRows",
    "canonical_document",
    "canonical_row",
    "cdc_columns",
    "convert_column",
    "decode",
    "decode_envelopes",
    "digest",
    "document_key",
    "document_of_row",
    "document_text",
    "dump",
    "equal",
    "event_key",
    "fit",
    "fit_exactly",
    "from_delta_schema",
    "has_soft_deletes",
    "infer",
    "key_text",
    "key_value",
    "parquet_schema",
    "parse",
    "parse_document",
    "pointer_names",
    "pointer_to",
    "pointer_token",
    "to_delta_schema",
    "type_wide_enough",
    "walk_documents",
    "widened",
]
