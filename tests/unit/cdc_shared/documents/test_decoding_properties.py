"""Random documents: no value is lost or altered, however they are batched, and the two paths agree.

Texts are written as Debezium writes them (`legacy_text`, itself compared with texts of Debezium's own serializer in
test_extended_json.py's payload).
"""

import base64
import json
import os
import random
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st

from cdc_shared.documents import (
    DocumentSchema,
    canonical_document,
    canonical_row,
    decode,
    from_delta_schema,
    to_delta_schema,
)
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression, Symbol, Undefined
from cdc_shared.documents.extended_json import double_text, parse, parse_document
from cdc_shared.documents.fast_decoder import Refused, decode_block
from cdc_shared.documents.kinds import kind_of
from cdc_shared.documents.walker import walk

pytestmark = pytest.mark.unit

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 100))
slow_is_fine = settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# --- documents as Debezium writes them --------------------------------------------------------------------------------


def legacy_text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Int64():
            return f'{{"$numberLong": "{int(value)}"}}'
        case int():
            return str(value)
        case float():
            return double_text(value)
        case Code():
            scope = "" if value.scope is None else f',"$scope": {legacy_text(value.scope)}'
            return f'{{"$code": {json.dumps(str(value))}{scope}}}'
        case str():
            return json.dumps(value, ensure_ascii=False)
        case Binary():
            return f'{{"$binary": "{base64.b64encode(value).decode()}","$type": "{value.subtype:02X}"}}'
        case ObjectId():
            return f'{{"$oid": "{value}"}}'
        case DatetimeMS():
            return f'{{"$date": {int(value)}}}'
        case Decimal128():
            return f'{{"$numberDecimal": "{value}"}}'
        case RegularExpression():
            return f'{{"$regex": {json.dumps(value.pattern)},"$options": {json.dumps(value.options)}}}'
        case Timestamp():
            return f'{{"$timestamp": {{"t": {value.time},"i": {value.inc}}}}}'
        case MinKey():
            return '{"$minKey": 1}'
        case MaxKey():
            return '{"$maxKey": 1}'
        case Undefined():
            return '{"$undefined": true}'
        case Symbol():
            return f'{{"$symbol": {json.dumps(value.value)}}}'
        case DuplicateKeys():
            return _pairs(value.pairs)
        case dict():
            return _pairs(value.items())
        case list():
            return "[" + ",".join(map(legacy_text, value)) + "]"
    raise TypeError(type(value))


def _pairs(pairs: Any) -> str:
    return (
        "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}: {legacy_text(value)}" for name, value in pairs) + "}"
    )


def test_the_writer_of_these_tests_writes_what_debezium_writes() -> None:
    payloads = Path(__file__).parents[3] / "payloads" / "debezium-texts.jsonl"
    for line in payloads.read_text().splitlines():
        after = json.loads(line)["after"]
        document = parse_document(after)
        assert canonical_document(legacy_text(document)) == canonical_document(after)


# --- random values ----------------------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(
        ["a", "b", "c", "A", "a.b", "a_b", "$x", "", "_cdc_key", "/", "~1", "é", "$oid", "$date", "t", "_id"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=4),
)
texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(['{"$numberLong": "5"}', "\u0000", "\n", "😀", "NaN"]),
)
doubles = st.one_of(st.floats(width=64), st.sampled_from([-0.0, 0.0, 5.0, 2.0**53, -(2.0**53), 2.0**63, 1e300, 2.5]))
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 8])).map(Int64)
decimals = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12).map(str),
    st.sampled_from(
        [
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "0",
            "1E+3",
            "1.50",
            "1E-6176",
            "9" * 34,
            "0.123456789012345678",
            "-0.00",
        ]
    ),
    st.tuples(st.integers(-(10**34) + 1, 10**34 - 1), st.integers(-40, 40)).map(lambda pair: f"{pair[0]}E{pair[1]}"),
).map(Decimal128)
dates = st.one_of(
    st.integers(-62_135_596_800_000, 253_402_300_799_999),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 253_402_300_800_000]),
).map(DatetimeMS)
binaries = st.builds(Binary, st.binary(max_size=20), st.sampled_from([0, 3, 4, 5, 0x80]))
uuids = st.uuids().map(Binary.from_uuid)
object_ids = st.binary(min_size=12, max_size=12).map(ObjectId)
regexes = st.builds(RegularExpression, texts, st.sampled_from(["", "i", "im", "q"]))
timestamps = st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
exotic = st.one_of(
    st.sampled_from([MinKey(), MaxKey(), Undefined()]),
    texts.map(Symbol),
    texts.map(Code),
    st.builds(Code, texts, st.just({"x": 1})),
)
SCALARS = [
    texts,
    int32s,
    int64s,
    doubles,
    decimals,
    dates,
    binaries,
    uuids,
    object_ids,
    regexes,
    timestamps,
    st.booleans(),
]
scalars = st.one_of(st.none(), exotic, *SCALARS)


def objects(values: st.SearchStrategy[Any], max_size: int = 5) -> st.SearchStrategy[Any]:
    duplicates = st.lists(st.tuples(st.sampled_from("ab"), values), min_size=2, max_size=3).filter(
        lambda pairs: len(dict(pairs)) < len(pairs)
    )
    plain = st.dictionaries(names, values, max_size=max_size)
    return st.integers(0, 19).flatmap(
        lambda odd: plain if odd else duplicates.map(lambda pairs: DuplicateKeys(tuple(pairs)))
    )


values = st.recursive(scalars, lambda below: st.one_of(st.lists(below, max_size=4), objects(below)), max_leaves=12)


def is_document(value: Any) -> bool:
    """Not so `{"$date": 0}`: its text is a date's. No document of MongoDB's is without an `_id`."""
    return isinstance(parse(legacy_text(value)), dict | DuplicateKeys)


any_document = objects(values, max_size=8).filter(is_document)


@st.composite
def shapes(draw: st.DrawFn, depth: int = 0) -> Any:
    """A strategy for the values of one field of a uniform collection."""
    choice = draw(st.integers(0, len(SCALARS) + (2 if depth < 3 else 0)))
    if choice < len(SCALARS):
        return SCALARS[choice]
    if choice == len(SCALARS):
        return draw(st.sampled_from([int32s | int64s, int32s | doubles]))
    if choice == len(SCALARS) + 1:
        return st.lists(st.none() | draw(shapes(depth + 1)), max_size=3)
    return draw(members(depth + 1))


@st.composite
def members(draw: st.DrawFn, depth: int = 0) -> Any:
    chosen = draw(
        st.lists(st.sampled_from(["a", "b", "c", "d", "x.y", "$v", "e é"]), unique=True, min_size=1, max_size=4)
    )
    return st.fixed_dictionaries({}, optional={name: st.none() | draw(shapes(depth)) for name in chosen})


@st.composite
def collections(draw: st.DrawFn) -> list[Any]:
    """Mostly uniform documents, some odd ones among them."""
    documents = draw(st.lists(draw(members()), min_size=1, max_size=12))
    for _ in range(draw(st.integers(0, 2))):
        documents.insert(draw(st.integers(0, len(documents))), draw(any_document))
    return documents


def assert_rows_hold(documents: list[str], schema: DocumentSchema) -> DocumentSchema:
    decoded = decode(documents, schema)
    assert decoded.table.num_rows == len(decoded.rescued) == len(documents)
    assert not decoded.invalid
    decoded.table.validate(full=True)
    for text, row, rescued in zip(documents, decoded.table.to_pylist(), decoded.rescued.to_pylist(), strict=True):
        assert canonical_row(row, decoded.schema, rescued) == canonical_document(text)
    return decoded.schema


@slow_is_fine
@seed(SEED)
@given(st.one_of(collections(), st.lists(any_document, min_size=1, max_size=8)), st.data())
def test_rows_hold_their_documents_however_they_are_batched(documents: list[Any], data: st.DataObject) -> None:
    schema, rest = DocumentSchema(), [legacy_text(document) for document in documents]
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batch, rest = rest[:size], rest[size:]
        wider = assert_rows_hold(batch, schema)
        assert from_delta_schema(to_delta_schema(wider)) == wider.typed()
        assert _extends(schema, wider)
        schema = wider
        if data.draw(st.booleans()):  # the writer was restarted: it knows what the table says
            schema = from_delta_schema(to_delta_schema(schema))


def _extends(known: Any, wider: Any) -> bool:
    """Whether every stored column of `known` is in `wider`, at the same place and of the same type, or of a struct that
    was widened.
    """
    fields = [(field, wider.by_name[field.name]) for field in known.stored]
    return all(
        old.column == new.column and (old.type == new.type or type(old.type) is type(new.type)) for old, new in fields
    )


def outcome(columns: list[Any]) -> str:
    return repr([column.to_pylist() for column in columns])


def assert_paths_agree(batch: list[str], schema: DocumentSchema) -> bool:
    try:
        fast = decode_block(batch, schema)
    except Refused:
        return False
    walked = walk(batch, schema)
    assert not walked.invalid, "the fast path took what is no document"
    assert not any(walked.rescued), "the fast path kept what the walker rescues"
    slow = walked.columns(schema)
    assert [column.type for column in fast] == [column.type for column in slow]
    for column in fast:
        column.validate(full=True)
    assert outcome(fast) == outcome(slow)
    return True


@slow_is_fine
@seed(SEED)
@given(collections())
def test_the_fast_path_agrees_with_the_walker(documents: list[Any]) -> None:
    batch = [legacy_text(document) for document in documents]
    schema = decode(batch, DocumentSchema()).schema
    took = assert_paths_agree(batch, schema)
    for text in batch:
        took |= assert_paths_agree([text], schema)
    event(f"fast path took something: {took}")
    # Whatever mixture of paths `decode` chooses, it gives what walking every document gives.
    result, walked = decode(batch, schema), walk(batch, schema)
    assert result.schema == schema
    assert outcome(result.table.combine_chunks().columns) == outcome(walked.columns(schema))
    assert result.rescued.to_pylist() == walked.rescued
    assert result.stats.rescued_values == walked.rescued_values


FRAGMENTS = [
    "null", "{}", "[]", "5", "-0", "-0.0", "5.0", "1e3", "1e400", "-1E400", "NaN", "-Infinity", "Inf", "-Inf", "nan",
    "9007199254740993", "99999999999999999999", "true", '"x"', '"\\ud800"', '"\\u0000"', '{"$numberLong": "5"}',
    '{"$numberLong":"-0"}', '{"$numberLong": "05"}', '{"$date": null}', '{"$date": {"$numberLong": "5"}}',
    '{"$date": 5.0}', '{"$date": 99999999999999999}', '{"$oid": "foo"}', '{"$oid": null}',
    '{"$oid": "ABCDEFABCDEFABCDEFABCDEF"}', '{"$numberDecimal": "+1"}', '{"$numberDecimal": " 1"}',
    '{"$numberDecimal": "1_0"}', '{"$numberDecimal": "-0"}', '{"$numberDecimal": "1e5"}', '{"$numberDecimal": ".5"}',
    '{"$numberDecimal": "5."}', '{"$numberDecimal": ""}', '{"$numberDecimal": "0x5"}',
    '{"$timestamp": {"t": -1,"i": 1}}', '{"$timestamp": {"t": {"$numberLong": "1"},"i": 1}}',
    '{"$timestamp": {"t": 1}}', '{"$binary": "A","$type": "00"}', '{"$binary": "AAA=","$type": "00"}',
    '{"$type": "00","$binary": "AAA="}', '{"$binary": "AAAA","$type": "5"}', '{"$binary": "AB==","$type": "04"}',
    '{"$regex": "x"}', '{"$options": "i","$regex": "x"}', '{"$regex": "x","$options": null}', '{"a": 1,"a": 2}',
    "\n1", "1 ", "\t[ 1 ]", "\x00", "1}\n{", '1} {"a": 1', "'x'", "/**/1", "01", "+1", ".5", "1.", "0x1", "\ufeff1",
]  # fmt: skip


@slow_is_fine
@seed(SEED)
@given(st.data())
def test_the_fast_path_takes_nothing_that_the_walker_reads_otherwise(data: st.DataObject) -> None:
    value = data.draw(data.draw(st.sampled_from(SCALARS)))
    wrap = data.draw(st.sampled_from(["%s", "[%s]", '{"m": %s}', '[{"m": %s,"n": 1}]']))
    usual = f'{{"f": {wrap % legacy_text(value)}}}'
    odd = f'{{"f": {wrap % data.draw(st.sampled_from(FRAGMENTS))}}}'
    schema = decode([usual], DocumentSchema()).schema
    for batch in ([usual], [odd], [usual, odd], [odd, usual, usual]):
        assert_paths_agree(batch, schema)


@seed(SEED)
@settings(deadline=None, max_examples=EXAMPLES, print_blob=True)
@given(st.integers(0, len(SCALARS) - 1), st.data())
def test_values_of_one_type_are_never_rescued(kind: int, data: st.DataObject) -> None:
    """Rescue rate 0 for uniform collections; excepted are the values that no column can hold (see types.md)."""
    values = data.draw(st.lists(SCALARS[kind].filter(storable), min_size=1, max_size=6))
    same = [value for value in values if kind_of(value) == kind_of(values[0])]  # binaries of one subtype
    batch = [legacy_text({"f": value, "l": [value, None], "s": {"m": [{"v": value}]}}) for value in same]
    decoded = decode(batch, DocumentSchema())
    assert decoded.stats.rescued_values == 0
    assert decoded.rescued.null_count == len(batch)


def storable(value: Any) -> bool:
    if isinstance(value, DatetimeMS):
        return -62_135_596_800_000 <= int(value) <= 253_402_300_799_999
    if isinstance(value, Decimal128):
        number = Context(prec=38).normalize(value.to_decimal())
        negative_zero = number.is_zero() and number.is_signed()
        exponent = number.as_tuple().exponent
        return isinstance(exponent, int) and not negative_zero and abs(number) < Decimal(10) ** 20 and exponent >= -10
    return True
