"""The batch that creates a column decides its type: by a sample where that is enough, never differently."""

import pytest
from decoding import decoded, known

from cdc_shared.documents import DocumentSchema, decode, decoder, equal, infer
from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import SAMPLE_ROWS

pytestmark = pytest.mark.unit


def test_a_uniform_first_batch_is_typed_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f'{{"_id": {i},"n": {{"$numberLong": "{i}"}},"tags": ["a"]}}' for i in range(2 * SAMPLE_ROWS)]
    looked_at = []
    monkeypatch.setattr(
        decoder, "infer", lambda sample, *a, **k: looked_at.append(len(sample)) or infer(sample, *a, **k)
    )
    result = decode(texts, DocumentSchema())
    assert looked_at == [SAMPLE_ROWS]
    assert result.schema == infer(texts, DocumentSchema())
    assert result.table["n"].to_pylist() == list(range(2 * SAMPLE_ROWS))


@pytest.mark.parametrize("odd", ['{"_id": 1,"n": 2.5}', '{"_id": 1,"n": 1,"new": 1}', '{"_id": 1,"n": "x"}', "{"])
def test_types_do_not_depend_on_which_documents_the_sample_holds(odd: str) -> None:
    texts = [f'{{"_id": {i},"n": {i}}}' for i in range(2 * SAMPLE_ROWS)]
    texts[1] = odd  # every second document is in the sample: this one is not
    result = decode(texts, DocumentSchema())
    assert result.schema == infer(texts, DocumentSchema())
    for row in range(4):
        if row not in result.invalid:
            values = {name: result.table[name][row].as_py() for name in result.table.column_names}
            assert equal(texts[row], values, result.schema, result.rescued[row].as_py())


# --- types in the batch that creates a column ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1", '{"$numberLong": "2"}'], t.LONG),
        (["1", "2.5"], t.DOUBLE),
        (["1", "2.0"], t.DOUBLE),
        (['{"$numberLong": "9007199254740993"}', "2.0"], t.LONG),
        (['{"$numberLong": "9007199254740993"}', "2.5"], t.DOUBLE),
        (['{"$numberDecimal": "1.5"}', '{"$numberDecimal": "0.12345678901"}'], t.Decimal(18)),
        (['{"$numberDecimal": "1.50000000000000"}'], t.Decimal(10)),
        (['"a"', "1", "2"], t.LONG),
        (['"a"', "1"], t.STRING),
        (["[]", '"a"'], t.STRING),
        (["[1]", "[2.5]", "[null]"], t.List(t.DOUBLE)),
        (['[1,"a"]'], t.JSON),
        (['["a"]', "[1]"], t.JSON),
        (['[["a"],[1]]'], t.JSON),
        (['[{"$code": "f()"}]'], t.JSON),
        (["[[[1]],[[2]]]"], t.List(t.List(t.List(t.LONG)))),
        (['[{"k": "a","v": 1},{"k": "b","v": "x"}]'], t.List(t.Struct((t.Field("k", t.STRING), t.Field("v", t.JSON))))),
        (['["a"]'] * 200 + ["[1]"], t.List(t.STRING)),
        (["null", "[]", "{}", "[[]]", '{"x": {}}'], t.NULL),
    ],
)
def test_inference(values: list[str], type_: t.FieldType) -> None:
    texts = [f'{{"f": {value}}}' for value in values]
    assert infer(texts, DocumentSchema()).fields == (t.Field("f", type_),)
    assert decoded(*texts).schema.typed() == DocumentSchema((t.Field("f", type_),)).typed()


def test_a_known_type_never_changes() -> None:
    schema = known(a=t.LONG, b=t.List(t.STRING), c=t.NULL)
    wider = infer(['{"a": "x","b": [1],"c": "y","d": 1}'] * 9, schema)
    assert wider == DocumentSchema((*schema.fields[:2], t.Field("c", t.STRING), t.Field("d", t.LONG)))


def test_a_new_column_stands_behind_those_that_a_table_has() -> None:
    first = decoded('{"a": null,"s": {"x": null,"y": 1},"b": 1}').schema
    second = decoded('{"c": 1,"a": 1,"s": {"x": 1}}', schema=first)
    assert second.table.column_names == ["s", "b", "a", "c"]
    assert second.table.schema.field("s").type.names == ["y", "x"]


def test_one_array_that_fits_nothing_does_not_widen_and_costs_one_row() -> None:
    schema = known(_id=t.LONG, l=t.List(t.Struct((t.Field("x", t.NULL), t.Field("y", t.LONG)))))
    texts = [f'{{"_id": {i},"l": [{{"y": {i}}}]}}' for i in range(2000)]
    texts[700] = '{"_id": 700,"l": [{"x": 1},"s"]}'
    result = decoded(*texts, schema=schema)
    assert result.schema.typed() == schema.typed()
    assert result.stats.rescued_rows == 1
    assert result.stats.walked_rows <= 16
