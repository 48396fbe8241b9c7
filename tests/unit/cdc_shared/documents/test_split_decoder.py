"""Cutting fields out of a document's text: exactly those, or not at all."""

import pytest

from cdc_shared.documents import DocumentSchema, decode
from cdc_shared.documents import types as t
from cdc_shared.documents.fast_decoder import Refused
from cdc_shared.documents.split_decoder import decode_split

pytestmark = pytest.mark.unit

SCHEMA = DocumentSchema((t.Field("a", t.LONG), t.Field("j", t.JSON), t.Field("é", t.STRING), t.Field("n", t.NULL)))
SLOW = {"j", "n"}


def split(*texts: str, schema: DocumentSchema = SCHEMA) -> tuple[list[list[object]], list[str | None]]:
    rows = decode_split([t.encode() for t in texts], schema, SLOW, may_widen=False, max_struct_fields=1000)
    return [column.to_pylist() for column in rows.columns], rows.walked.rescued


def test_slow_fields_anywhere_in_the_text() -> None:
    columns, rescued = split(
        '{"j": [1,"x"],"a": 1,"é": "s"}',
        '{"a": 2,"j": {"a": 5,"j": 6},"é": "{\\"j\\": 1}"}',
        '{"é": "t","a": 3,"j": null}',
        '{"j": "only"}',
        '{"a": 4,"n": [],"j": 1,"n2": "new"}',
    )
    assert columns == [
        [1, 2, 3, None, 4],
        [
            '[{"$numberInt":"1"},"x"]',
            '{"a":{"$numberInt":"5"},"j":{"$numberInt":"6"}}',
            None,
            '"only"',
            '{"$numberInt":"1"}',
        ],
        ["s", '{"j": 1}', "t", None, None],
    ]
    assert rescued == [None, None, None, None, '{"/n":[],"/n2":"new"}']


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1,"j": 1,"a": 2}',
        '{"a": 1,"j": 1,"j": 2}',
        '{"a": 1, "j": 1}',
        '{ "a": 1,"j": 1}',
        '{"a":1,"j": 1}',
        '{"a": 1,"\\u006a": 1}',
        '{"a": 1,"\\u00e9": "x"}',
        '{"a": 1,"j": NaN}',
        '{"a": 1,"j": 99999999999999999999}',
        '{"a": 1,"j": {"$oid": 5}} ',
        '{"a": "x","j": 1}',
        "{}",
        "[]",
        "null",
    ],
)
def test_a_text_that_is_not_as_debezium_writes_it_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        split('{"a": 1}', text)


def test_decode_learns_which_field_to_walk() -> None:
    texts = [f'{{"_id": {i},"s": "t","v": {i if i % 2 else chr(34) + str(i) + chr(34)}}}' for i in range(3000)]
    schema = DocumentSchema((t.Field("_id", t.LONG), t.Field("s", t.STRING), t.Field("v", t.LONG)))
    result = decode(texts, schema)
    assert result.stats.rescued_rows == 1500
    assert result.stats.walked_rows < 300
    assert result.table["v"].to_pylist() == [i if i % 2 else None for i in range(3000)]
    assert result.table["_id"].to_pylist() == list(range(3000))
    assert result.rescued.to_pylist() == [None if i % 2 else f'{{"/v":"{i}"}}' for i in range(3000)]


def test_large_doubles_cost_their_field_the_fast_path_and_not_the_document() -> None:
    texts = [f'{{"_id": {i},"d": {i}.5E20}}' for i in range(3000)]
    result = decode(texts, DocumentSchema((t.Field("_id", t.LONG), t.Field("d", t.DOUBLE))))
    assert result.table["d"].to_pylist() == [float(f"{i}.5E20") for i in range(3000)]
    assert result.rescued.null_count == 3000
    assert result.stats.walked_rows < 100
