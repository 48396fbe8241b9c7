"""Digests: the same document has the same, whatever its way into the row; another has another."""

import os
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bson import Code, Decimal128, Int64
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tests.support.decoding import known
from tests.unit.cdc_shared.documents.test_decoding_properties import any_document, collections, is_document, legacy_text

from cdc_shared.documents import Decoded, DocumentSchema, canonical_document, decode, fit, fit_exactly
from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys, Undefined
from reconciliation.reconciler import row_digest
from reconciliation.reconciler.comparable_json import comparable_json
from reconciliation.reconciler.row_digest import RESCUED, row_digests

pytestmark = pytest.mark.unit

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 100))
slow_is_fine = settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NAN_PAYLOAD = float(np.array([0xFFF8_0000_0000_1234], np.uint64).view(np.float64)[0])


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


def table_of(decoded: Decoded) -> pa.Table:
    names = [*decoded.table.column_names, RESCUED]
    return pa.Table.from_arrays([*decoded.table.columns, decoded.rescued], names=names)


def digests(texts: list[str], schema: DocumentSchema) -> list[bytes]:
    fitted = fit_exactly(decode(texts, schema), schema)
    return [each.tobytes() for each in row_digests(table_of(fitted), schema)]


@slow_is_fine
@seed(SEED)
@given(collections() | st.lists(any_document, min_size=1, max_size=8), st.data())
def test_rows_have_equal_digests_only_if_they_hold_the_same_document(documents: list[Any], data: st.DataObject) -> None:
    texts = [legacy_text(document) for document in documents]
    changed = data.draw(st.sampled_from(documents))
    texts += [legacy_text(each) for each in data.draw(st.lists(variants(changed), max_size=4))]
    schema = decode(texts[: data.draw(st.integers(1, len(texts)))], DocumentSchema()).schema.typed()
    of_form: dict[bytes, bytes] = {}
    for text, digest in zip(texts, digests(texts, schema), strict=True):
        assert of_form.setdefault(digest, canonical_document(text)) == canonical_document(text)


@slow_is_fine
@seed(SEED)
@given(collections(), st.data())
def test_the_same_document_has_the_same_digest_in_whatever_company_and_order(
    documents: list[Any], data: st.DataObject
) -> None:
    """The writer decodes in batches of its own, against narrower schemas, and fits the rows as the schema widens."""
    texts = [legacy_text(document) for document in documents]
    schema, batches, rest = DocumentSchema(), [], list(texts)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batch, rest = rest[:size], rest[size:]
        knows_table = data.draw(st.booleans())
        decoded = decode(batch, schema) if knows_table else fit(decode(batch, DocumentSchema()), schema)
        batches.append((batch, decoded))
        schema = decoded.schema
    schema = schema.typed()
    for batch, decoded in batches:
        if fit_exactly(decoded, schema).table.num_rows != len(batch):  # no document has a column
            continue
        of_writer = row_digests(table_of(fit_exactly(decoded, schema)), schema)
        alone = [digests([text], schema)[0] for text in batch]
        held = [each.tobytes() for each in of_writer]
        assert held == digests(batch, schema) == alone


def variants(document: Any) -> st.SearchStrategy[Any]:
    """The document with one value exchanged for one that is nearly the same."""
    if not isinstance(document, dict) or not document:
        return st.just({"a": document}) if not isinstance(document, DuplicateKeys) else st.just(document)
    near = st.sampled_from([None, {}, [], [None], "", 0, -0.0, False, float("nan"), "null", {"a": None}, {"a": {}}])
    changed = st.tuples(st.sampled_from(sorted(document)), near).map(lambda pair: {**document, pair[0]: pair[1]})
    return changed.filter(is_document)


def digests_of(values: list[Any], type_: t.FieldType) -> list[bytes]:
    return digests([legacy_text({"f": value}) for value in values], known(f=type_).typed())


STRUCT = t.Struct((t.Field("a", t.LONG), t.Field("b", t.Struct((t.Field("c", t.STRING),)))))


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (t.LONG, [None, 0, 1, -1, 2**40, -0.0, "0", False]),
        (t.DOUBLE, [None, 0.0, -0.0, 1.5, float("nan"), float("inf"), "NaN"]),
        (t.STRING, [None, "", "\0", "\0\0", "a", "a\0", "null", 0]),
        (t.BOOLEAN, [None, False, True, 0, 1]),
        (t.Decimal(), [None, Decimal128("0"), Decimal128("-0"), Decimal128("1.5"), Decimal128("NaN"), 0]),
        (t.List(t.STRING), [None, [], [None], [None, None], [""], ["", ""], ["", None], ["a", "b"], ["ab"], [["a"]]]),
        (t.List(t.List(t.LONG)), [None, [], [[]], [[], []], [None], [[None]], [[1], [2]], [[1, 2]], [[1, 2], []]]),
        (t.List(STRUCT), [None, [], [{}], [None], [{"a": 1}], [{"a": 1}, {}], [{"b": {}}], [{"b": {"c": ""}}]]),
        (STRUCT, [None, {}, {"a": 0}, {"b": {}}, {"b": {"c": ""}}, {"b": {"c": "x"}}, {"a": "x"}, {"x": 1}, []]),
        (t.JSON, [None, {}, [], [None], "", 0, -0.0, "0", {"a": {}}, {"a": [None]}, {"$x": 1}, Code("0")]),
        (t.NULL, [None, {}, [], [None], "", 0, {"a": {}}, Undefined()]),
    ],
)  # fmt: skip
def test_values_that_are_nearly_the_same(type_: t.FieldType, values: list[Any]) -> None:
    assert len(set(digests_of(values, type_))) == len(values)


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (t.LONG, [5, Int64(5), 5.0]),
        (t.DOUBLE, [5, 5.0]),
        (t.Decimal(), [Decimal128("1.5"), Decimal128("1.50"), Decimal128("15E-1")]),
        (STRUCT, [{"a": 1, "b": {"c": "x"}}, {"b": {"c": "x"}, "a": Int64(1)}, {"a": 1, "b": {"c": "x"}, "d": None}]),
        (STRUCT, [{}, {"a": None}, {"b": None}]),
        (t.JSON, [{"a": 1, "b": [None]}, {"b": [None], "a": Int64(1)}, {"b": [None], "c": None, "a": 1.0}]),
        (t.STRING, [{"a": 1, "b": 2}, {"b": Int64(2), "a": 1.0, "c": None}]),
    ],
)
def test_values_that_the_canonical_form_does_not_tell_apart(type_: t.FieldType, values: list[Any]) -> None:
    assert len(set(digests_of(values, type_))) == 1


def test_every_nan_is_one() -> None:
    table = pa.table({"f": [float("nan"), NAN_PAYLOAD], RESCUED: pa.nulls(2, pa.string())})
    first, second = row_digests(table, known(f=t.DOUBLE))
    assert (first == second).all()


def test_values_do_not_move_from_a_column_to_the_next() -> None:
    schema = known(a=t.STRING, b=t.STRING, l=t.List(t.STRING), m=t.List(t.STRING))
    rows = [{"a": "xy"}, {"a": "x", "b": "y"}, {"b": "xy"}, {"l": ["x"]}, {"m": ["x"]}, {"l": [], "m": ["x"]}]
    assert len(set(digests([legacy_text(row) for row in rows], schema))) == len(rows)


def test_what_lies_behind_nulls_is_not_looked_at() -> None:
    schema = known(s=t.STRING, l=t.List(t.LONG), o=t.Struct((t.Field("n", t.LONG),)), d=t.Decimal())
    null = pa.py_buffer(b"\0")
    hidden = [
        pa.Array.from_buffers(pa.string(), 1, [null, pa.py_buffer(np.int32([0, 3])), pa.py_buffer(b"xyz")]),
        pa.Array.from_buffers(
            t.List(t.LONG).storage, 1, [null, pa.py_buffer(np.int32([0, 2]))], children=[pa.array([1, 2])]
        ),
        pa.Array.from_buffers(pa.struct([("n", pa.int64())]), 1, [null], children=[pa.array([7])]),
        pa.Array.from_buffers(pa.decimal128(38, 10), 1, [null, pa.py_buffer(np.int64([7, 7]))]),
    ]
    names = ["s", "l", "o", "d", RESCUED]
    rescued = pa.nulls(1, pa.string())
    table = pa.Table.from_arrays([*hidden, rescued], names=names)
    plain = pa.Table.from_arrays([*(pa.nulls(1, array.type) for array in hidden), rescued], names=names)
    assert (row_digests(table, schema) == row_digests(plain, schema)).all()


def test_blocks_chunks_slices_and_the_order_of_columns_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = known(a=t.LONG, s=t.STRING, l=t.List(STRUCT), b=t.BOOLEAN)
    texts = [
        legacy_text(
            {"a": n, "s": "x" * n, "l": [{"a": n, "b": {"c": str(n)}}] * (n % 3), "b": n % 2 == 0} if n % 4 else {}
        )
        for n in range(60)
    ]
    table = table_of(decode(texts, schema))
    right = row_digests(table, schema)
    assert len({each.tobytes() for each in right}) == 46  # every fourth of 60 is empty
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 30), table.slice(37)])
    assert (row_digests(pieces, schema) == right).all()
    assert (row_digests(table.select(["b", RESCUED, "s", "l", "a"]), schema) == right).all()
    large = table.set_column(1, "s", table["s"].cast(pa.large_string()).dictionary_encode())
    assert (row_digests(large, schema) == right).all()
    assert (row_digests(table.slice(11, 20), schema) == right[11:31]).all()
    monkeypatch.setattr(row_digest, "BLOCK_ROWS", 8)
    monkeypatch.setattr(row_digest, "BLOCK_BYTES", 100)
    assert (row_digests(table, schema) == right).all()


def test_no_rows() -> None:
    schema = known(a=t.LONG, l=t.List(t.STRING))
    assert row_digests(table_of(decode([], schema)), schema).shape == (0, 2)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="'a'"):
        row_digests(pa.table({RESCUED: ["x"]}), known(a=t.LONG))


def test_json_is_put_in_order_and_what_is_none_stays_as_it_is() -> None:
    texts = ['{"b":1,', "no json", None, '{"b":"x","a":"y"}', '{"a":"\\u001f\\n","b":null}', '{"a":1,"a":"\\ud800"}']
    expected = [*texts[:3], '{"a":"y","b":"x"}', '{"a":"\\u001f\\n"}', *texts[5:]]
    assert comparable_json(pa.array(texts)).to_pylist() == expected


def test_names_that_stand_twice_are_put_in_order_too() -> None:
    alike = '{"/b":{"a":true,"a":1},"/a":[]}', '{"/a":[],"/b":{"a":true,"a":1}}'
    other = '{"/a":[],"/b":{"a":1,"a":true}}'
    first, second, third = comparable_json(pa.array([*alike, other])).to_pylist()
    assert first == second != third


def test_integers_in_json_are_alike_and_nothing_that_looks_like_one() -> None:
    alike = ['{"$numberInt":"5"}', '{"$numberLong":"5"}', '{"$numberDouble":"5.0"}']
    assert comparable_json(pa.array(alike)).to_pylist() == ["5"] * 3
    others = [
        '{"$numberInt":"9999999999"}', '{"$numberDouble":"-0.0"}', '{"$numberDouble":"0.5"}', '{"$numberInt":"05"}',
        '"{\\"$numberInt\\":\\"5\\"}"', '{"$numberDouble":"1E+20"}', '{"$numberLong":"-0"}',
    ]  # fmt: skip
    assert comparable_json(pa.array(others)).to_pylist() == others


def test_decimals_of_one_value_are_alike_in_json_and_nothing_that_looks_like_one() -> None:
    def compared(*texts: str) -> list[str]:
        return comparable_json(pa.array([f'{{"/b":{text}}}' for text in texts])).to_pylist()

    def decimals(*numbers: str) -> tuple[str, ...]:
        return tuple(f'{{"$numberDecimal":"{number}"}}' for number in numbers)

    for alike in (decimals("0.000", "0", "0E+3"), decimals("5", "5.0", "0.5E1", "50E-1"), decimals("NaN", "-NaN")):
        assert len(set(compared(*alike))) == 1
    others = *decimals("0", "-0", "5", "0.5", "five", "", "1" * 40), '{"$numberDecimal":5}', '"5"', "5"
    assert len(set(compared(*others))) == len(others)
