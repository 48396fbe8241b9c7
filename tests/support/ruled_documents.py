"""Random documents and random transformation rules that meet: few names, every type, shapes that change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bson
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import strategies as st

from cdc_shared.documents import document_text
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression, Symbol, Undefined
from cdc_shared.documents.extended_json import string_text
from cdc_shared.models import data_quality as q
from cdc_shared.rules.compiled import check_rules
from cdc_shared.rules.rule_checks import InvalidRules

KEY = b"a key of sixteen bytes or more"

# --- texts ------------------------------------------------------------------------------------------------------------


def debezium_text(value: Any) -> str:
    """A value as Debezium writes it in `after`."""
    match value:
        case DuplicateKeys():
            return _object_text(value.pairs)
        case dict():
            return _object_text(value.items())
        case list():
            return "[" + ",".join(map(debezium_text, value)) + "]"
        case Symbol():
            return f'{{"$symbol": {string_text(value.value)}}}'
        case Undefined():
            return '{"$undefined": true}'
        case RegularExpression():
            return f'{{"$regex": {string_text(value.pattern)},"$options": {string_text(value.options)}}}'
    return document_text(bson.encode({"v": value}))[len('{"v": ') : -len("}")]


def _object_text(pairs: Any) -> str:
    return "{" + ",".join(f"{string_text(name)}: {debezium_text(value)}" for name, value in pairs) + "}"


# --- documents --------------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d", "a_b", "a_b_c", "A", "e mail", "x/y"]
SCALARS: list[st.SearchStrategy[Any]] = [
    st.sampled_from(["", "5", "-7", "2.5", "1E3", "true", "2024-02-29", "1969-12-31T23:59:59.5Z", "ann@example.org"])
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=9),
    st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 5]),
    st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, -(2**63), 5, 1_700_000_000_000]).map(Int64),
    st.sampled_from([0.0, -0.0, 1.0, 5.0, 2.5, 1e300, 2.0**60, float("nan"), float("inf"), 1e-7]),
    st.sampled_from(["5", "5.0", "2.50", "1E+3", "-0", "NaN", "Infinity", "1E-30", "123456789012345678901"]).map(
        Decimal128
    ),
    st.sampled_from([0, -1, 1_700_000_000_123, -62_135_596_800_000, 253_402_300_800_000, 2**63 - 1, -(2**63)]).map(
        DatetimeMS
    ),
    st.booleans(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.uuids().map(Binary.from_uuid),
    st.builds(Binary, st.binary(max_size=4), st.sampled_from([0, 4, 5])),
    st.builds(RegularExpression, st.sampled_from(["^a", "."]), st.sampled_from(["", "i"])),
    st.builds(Timestamp, st.integers(0, 9), st.integers(0, 9)),
]
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, MinKey(), MaxKey(), Undefined(), Symbol("s"), Code("f()"), Code("f()", {"x": 1}), {}, []]
)


def _objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    plain = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)
    twice = st.tuples(values, values, plain).map(
        lambda drawn: DuplicateKeys((("a", drawn[0]), *drawn[2].items(), ("a", drawn[1]), ("b", 1)))
    )
    return st.integers(0, 24).flatmap(lambda odd: plain if odd else twice)


any_value = st.recursive(
    st.one_of(ODD, *SCALARS), lambda below: st.lists(below, max_size=3) | _objects(below), max_leaves=8
)


@st.composite
def _shapes(draw: st.DrawFn, depth: int = 0) -> st.SearchStrategy[Any]:
    choice = draw(st.integers(0, 5 if depth < 3 else 2))
    if choice < 3:
        return draw(st.sampled_from(SCALARS))
    if choice == 3:
        return st.lists(st.none() | draw(_shapes(depth + 1)), max_size=3)
    return draw(_uniform(depth + 1))


@st.composite
def _uniform(draw: st.DrawFn, depth: int = 0) -> st.SearchStrategy[Any]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5))
    return st.fixed_dictionaries({}, optional={name: st.none() | draw(_shapes(depth)) for name in names})


@st.composite
def document_texts(draw: st.DrawFn) -> list[str]:
    """Mostly uniform documents, some odd ones among them."""
    ids = draw(st.sampled_from([SCALARS[0], SCALARS[1], SCALARS[7], any_value.filter(lambda v: type(v) is not list)]))
    shape = draw(_uniform())
    documents = draw(st.lists(shape, min_size=1, max_size=6))
    documents += draw(st.lists(_objects(any_value), max_size=2))
    return [debezium_text(_with_id(document, draw(ids))) for document in draw(st.permutations(documents))]


def _with_id(document: Any, value: Any) -> Any:
    if isinstance(document, DuplicateKeys):
        return DuplicateKeys((("_id", value), *document.pairs))
    return {"_id": value, **document}


# --- rules ------------------------------------------------------------------------------------------------------------

_KEYS = st.just("env:KEY")
_NEW_NAMES = st.sampled_from(["a", "b", "c", "A", "new", "e_mail"])
_CONVERSIONS = ["string", "long", "double", "decimal", "boolean", "date", "json"]
_ANY_PATHS = ["/a", "/b", "/a/b", "/a/*/b", "/c/d/a", "/a_b", "/A", "/e mail", "/x~1y"]


@st.composite
def rule_lists(draw: st.DrawFn, documents: list[Any]) -> q.QualitySpec:
    """Rules that `check_rules` lets pass, most of them for fields that these documents have."""
    there = sorted({path for document in documents for path in _paths_within(document, "")} - {"/_id"})
    paths = st.sampled_from(there or _ANY_PATHS) | st.sampled_from(_ANY_PATHS)
    deeper = paths.map(lambda path: f"{path}/b")  # where there is no object, the path ends early
    rules = st.one_of(*_rules(paths.filter(lambda path: not path.endswith("*"))), *_masks(paths | deeper))
    quality = q.QualitySpec(version=1)
    for rule in draw(st.lists(rules, min_size=1, max_size=6)):
        longer = quality.model_copy(update={"transformation": (*quality.transformation, rule)})
        try:
            check_rules(longer)
        except InvalidRules:
            continue
        quality = longer
    return quality


def _paths_within(value: Any, path: str) -> Iterator[str]:
    pairs = value.items() if isinstance(value, dict) else value.pairs if isinstance(value, DuplicateKeys) else ()
    for name, member in pairs:
        below = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if path or name != "_id":
            yield below
            yield from _paths_within(member, below)
    for element in value if isinstance(value, list) else ():
        yield path + "/*"
        yield from _paths_within(element, path + "/*")
        yield from _paths_within(element, path)


def _rules(paths: st.SearchStrategy[str]) -> list[st.SearchStrategy[q.TransformationRule]]:
    several = st.lists(paths, min_size=1, max_size=4, unique=True).map(tuple)
    values = st.sampled_from(["k", 7, 2**40, 2.5, True])
    return [
        st.builds(q.Rename, rule=st.just("rename"), path=paths, to=_NEW_NAMES),
        st.builds(q.Convert, rule=st.just("convert"), path=paths, to=st.sampled_from(_CONVERSIONS)),
        st.builds(q.Drop, rule=st.just("drop"), path=paths),
        st.builds(q.Constant, rule=st.just("constant"), path=paths, value=values),
        st.builds(q.Flatten, rule=st.just("flatten"), path=paths, separator=st.sampled_from(["_", "__", "."])),
        st.builds(q.Include, rule=st.just("include"), paths=several),
        st.builds(q.Exclude, rule=st.just("exclude"), paths=several),
    ]


def _masks(paths: st.SearchStrategy[str]) -> list[st.SearchStrategy[q.TransformationRule]]:
    units = st.sampled_from(["year", "month", "day", "hour"])
    return [
        st.builds(q.Convert, rule=st.just("convert"), path=paths, to=st.sampled_from(_CONVERSIONS)),
        st.builds(q.Redact, rule=st.just("redact"), path=paths, text=st.sampled_from(["***", ""])),
        st.builds(q.Partial, rule=st.just("partial"), path=paths, keep_last=st.integers(1, 5)),
        st.builds(q.Hash, rule=st.just("hash"), path=paths | st.just("/_id"), key=_KEYS),
        st.builds(q.EmailMask, rule=st.just("email"), path=paths, key=_KEYS, keep_domain=st.booleans()),
        st.builds(q.TruncateDate, rule=st.just("truncate_date"), path=paths, to=units),
    ]
