"""A masked value appears nowhere in what rules give, whatever its type, its place, and what the table knows of it."""

from __future__ import annotations

import io
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from bson import Binary, Code, Decimal128, Int64
from ruled_documents import KEY, debezium_text

from cdc_shared.documents import DocumentSchema, decode, key_text, parse_document
from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression, Symbol
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules

pytestmark = pytest.mark.unit

WORD = "Sesam-open-yourself"
NUMBER = 918_273_645_546_372_819
SECRETS = [WORD.encode(), str(NUMBER).encode(), NUMBER.to_bytes(8, "little"), b"U2VzYW0tb3Blbi"]
"""In any spelling: text, digits, an int64 in a buffer, base64."""

PLACES = ["/p", "/o/p", "/o/q/p", "/l/*/p", "/l/*", "/e mail", "/Case", "/_cdc_p", "/$p"]
VALUES: list[Any] = [
    WORD, f"{WORD}@example.org", Int64(NUMBER), Decimal128(str(NUMBER)), Binary(WORD.encode()), Code(WORD),
    Symbol(WORD), RegularExpression(WORD, ""), {"m": WORD}, {WORD: 1}, [WORD, None], [{"m": [WORD]}], float(NUMBER),
    DuplicateKeys((("m", WORD), ("m", 1))),
]  # fmt: skip
ENDS = [value for value in VALUES if not isinstance(value, (dict, DuplicateKeys)) and value != [{"m": [WORD]}]]
"""Values without objects: they end a path that goes on."""
MASKS: list[dict[str, Any]] = [
    {"rule": "redact"},
    {"rule": "partial", "keep_last": 4},
    {"rule": "hash", "key": "env:K"},
    {"rule": "email", "key": "env:K"},
    {"rule": "truncate_date", "to": "day"},
]


def document(path: str, value: Any) -> Any:
    """A document with the value at that path."""
    *above, last = path.split("/")[1:]
    at: Any = [value, None] if last == "*" else {"before": 1, last: value}
    for name in reversed(above):
        at = [at, None] if name == "*" else {name: at}
    return {"_id": 1, "case": "taken", **at}


def twice(path: str, value: Any) -> Any:
    """The same, where the path's first name comes twice."""
    first = document(path, value)
    return DuplicateKeys((*first.items(), *first.items()))


def everything(rules: Rules, texts: list[str], schema: DocumentSchema, max_fields: int) -> bytes:
    """Every byte that comes of a batch."""
    result = rules.transform(decode(texts, schema, max_struct_fields=max_fields), texts)
    decoded = result.decoded
    table = decoded.table.append_column("_cdc_rescued", decoded.rescued)
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    words = [decoded.schema, decoded.invalid, decoded.stats, decoded.failures, result.counts, rules, rules.masks]
    words += [table.to_pylist(), [rules.transform_document(parse_document(text)) for text in texts]]
    return buffer.getvalue() + repr(words).encode()


def rules_for(path: str, mask: dict[str, Any]) -> Rules:
    quality = QualitySpec.model_validate({"transformation": [{"path": path} | mask]})
    return Rules.compile(quality, "any", lambda _: KEY)


def known_schemas(path: str) -> list[DocumentSchema]:
    """What a table may know of the first name of a path."""
    name = path.split("/")[1]
    struct = t.Struct((t.Field("p", t.STRING), t.Field("q", t.Struct((t.Field("p", t.LONG),)))))
    types = [t.STRING, t.LONG, t.JSON, t.TEXT, t.NULL, struct, t.List(struct), t.List(t.STRING), t.Decimal()]
    fields = [t.Field("_id", t.LONG), t.Field("case", t.STRING)]
    known = [DocumentSchema((*fields, t.Field(name, type_))) for type_ in types if name not in ("Case", "_cdc_p")]
    return [DocumentSchema(), *known]


@pytest.mark.parametrize("mask", MASKS, ids=[mask["rule"] for mask in MASKS])
@pytest.mark.parametrize("path", PLACES)
def test_nothing_is_left_of_a_masked_value(path: str, mask: dict[str, Any]) -> None:
    rules = rules_for(path, mask)
    texts = [debezium_text(make(path, value)) for make, value in product((document, twice), VALUES)]
    for schema, max_fields in [(DocumentSchema(), 3), *((schema, 1000) for schema in known_schemas(path))]:
        whole = everything(rules, texts, schema, max_fields)
        assert not [secret for secret in SECRETS if secret in whole], (schema, max_fields)


@pytest.mark.parametrize("mask", MASKS, ids=[mask["rule"] for mask in MASKS])
@pytest.mark.parametrize("path", [path for path in PLACES if path.count("/") > 1])
def test_nothing_is_left_of_a_value_that_ends_the_path_early(path: str, mask: dict[str, Any]) -> None:
    rules = rules_for(path, mask)
    tokens = path.split("/")
    for early in ["/".join(tokens[:end]) for end in range(2, len(tokens))]:
        for schema in known_schemas(path):  # alone: beside others a value may be rescued, and no column tells of it
            for make, value in product((document, twice), ENDS):
                whole = everything(rules, [debezium_text(make(early, value))], schema, 1000)
                assert not [secret for secret in SECRETS if secret in whole], (early, value, schema)
        texts = [debezium_text(make(early, value)) for make, value in product((document, twice), ENDS)]
        for schema, max_fields in [(DocumentSchema(), 3), *((schema, 1000) for schema in known_schemas(path))]:
            whole = everything(rules, texts, schema, max_fields)
            assert not [secret for secret in SECRETS if secret in whole], (early, schema, max_fields)


@pytest.mark.parametrize("value", [value for value in VALUES if type(value) is not list])
def test_nothing_is_left_of_a_masked_id(value: Any) -> None:
    rules = rules_for("/_id", {"rule": "hash", "key": "env:K"})
    texts = [debezium_text({"_id": value, "a": 1}), debezium_text(DuplicateKeys((("_id", value), ("a", 1), ("a", 2))))]
    whole = everything(rules, texts, DocumentSchema(), 1000)
    if not isinstance(value, DuplicateKeys):
        whole += rules.key_text(key_text(value)).encode()
    assert not [secret for secret in SECRETS if secret in whole]


def test_the_search_finds_what_is_there() -> None:
    rules = rules_for("/other", MASKS[0])
    for value in (WORD, Int64(NUMBER), Binary(WORD.encode()), {"m": WORD}):
        whole = everything(rules, [debezium_text(document("/p", value))], DocumentSchema(), 1000)
        assert [secret for secret in SECRETS if secret in whole]
