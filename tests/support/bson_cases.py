"""Corner values of every BSON type, as bytes: each is one document with one field, named for what its column holds.

`bson.encode` writes what it knows; the rest (deprecated types, unusual bits) is put together here. The values of one
field have one column type, so nothing conflicts: what is rescued nevertheless no column can hold. The table in
docs/architecture/types.md says, for each field, what becomes of its values.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId

MEGABYTE: Final = 1_000_000
YEAR_1_MS: Final = -62_135_596_800_000
YEAR_10000_MS: Final = 253_402_300_800_000
OID: Final = ObjectId("000102030405060708090a0b")


@dataclass(frozen=True)
class Element:
    """A BSON value as type byte and content."""

    type: int
    content: bytes


@dataclass(frozen=True)
class BsonCase:
    """One value of one field. `_id` of its document is `<field>/<name>`."""

    field: str
    name: str
    value: Element
    kept_by_secantus: bool = True
    """Whether SecantusDB gives it back as it was sent, as MongoDB does: it reads through Python's `bson` package."""

    @property
    def id(self) -> str:
        return f"{self.field}/{self.name}"

    @property
    def raw(self) -> bytes:
        return raw_document({"_id": element(self.id), self.field: self.value})


def element(value: Any) -> Element:
    """The value as `bson.encode` writes it."""
    encoded = bson.encode({"": value})
    return Element(encoded[4], encoded[6:-1])


def raw_document(members: Mapping[str, Element]) -> bytes:
    """A document's bytes."""
    body = b"".join(bytes([each.type]) + name.encode() + b"\0" + each.content for name, each in members.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def bson_cases() -> list[BsonCase]:
    """Every case. The first of each field is an ordinary value, from which its column gets its type."""
    return [
        *_numbers(),
        *_decimals(),
        *_texts(),
        *_dates(),
        *_binaries(),
        *_regexes(),
        *_rare_types(),
        *_objects(),
        *_arrays(),
    ]


def seed_document(cases: Sequence[BsonCase], id: str = "seed") -> bytes:
    """One document with an ordinary value, the first of these, in every field that these have."""
    ordinary: dict[str, Element] = {"_id": element(id)}
    for case in cases:
        ordinary.setdefault(case.field, case.value)
    return raw_document(ordinary)


def _of(field: str, values: Mapping[str, Any]) -> Iterator[BsonCase]:
    for name, value in values.items():
        yield BsonCase(field, name, value if isinstance(value, Element) else element(value))


def _not_of_secantus(field: str, values: Mapping[str, Element]) -> Iterator[BsonCase]:
    for name, value in values.items():
        yield BsonCase(field, name, value, kept_by_secantus=False)


def _numbers() -> Iterator[BsonCase]:
    yield from _of(
        "double",
        {
            "1.5": 1.5,
            "0": 0.0,
            "-0": -0.0,
            "1": 1.0,
            "0.1": 0.1,
            "1/3": 1 / 3,
            "1E7": 1e7,
            "0.0001": 1e-4,
            "1E23": 1e23,
            "2^53": 2.0**53,
            "2^53 + 2": 2.0**53 + 2,
            "2^63": 2.0**63,
            "largest": 1.7976931348623157e308,
            "-largest": -1.7976931348623157e308,
            "smallest normal": 2.2250738585072014e-308,
            "largest subnormal": 2.225073858507201e-308,
            "smallest": 5e-324,
            "-smallest": -5e-324,
            "NaN": float("nan"),
            "NaN with a payload": Element(0x01, struct.pack("<Q", 0xFFF8_0000_0000_1234)),
            "infinity": float("inf"),
            "-infinity": float("-inf"),
        },
    )
    yield from _of("int32", {"7": 7, "0": 0, "-1": -1, "smallest": -(2**31), "largest": 2**31 - 1})
    yield from _of(
        "int64",
        {
            "7": Int64(7),
            "0": Int64(0),
            "2^31": Int64(2**31),
            "2^53 + 1": Int64(2**53 + 1),
            "-2^53 - 1": Int64(-(2**53) - 1),
            "smallest": Int64(-(2**63)),
            "largest": Int64(2**63 - 1),
        },
    )
    yield from _of("bool", {"true": True, "false": False})
    yield from _of("objectId", {"ordinary": OID, "all zeros": ObjectId(b"\0" * 12), "all ones": ObjectId(b"\xff" * 12)})
    yield from _of("null", {"null": None})


def _decimals() -> Iterator[BsonCase]:
    texts = {
        "12.34": "12.34",
        "0": "0",
        "-0": "-0",
        "0.000": "0.000",
        "0E+6111": "0E+6111",
        "0E-6176": "0E-6176",
        "1.000": "1.000",
        "1E+3": "1E+3",
        "28 digits before the point": "-" + "9" * 28,
        "29 digits before the point": "1" + "0" * 28,
        "10 places": "-0.0000000001",
        "11 places": "0.00000000001",
        "11 places, the last 0": "0.12345678900",
        "34 digits": "1234567890123456789012345678901234",
        "34 digits, 24 before the point": "123456789012345678901234.5678901234",
        "largest": "9.999999999999999999999999999999999E+6144",
        "-largest": "-9.999999999999999999999999999999999E+6144",
        "1E+6144": "1E+6144",
        "smallest normal": "1E-6143",
        "smallest subnormal": "1E-6176",
        "largest subnormal": "9.99999999999999999999999999999999E-6144",
        "NaN": "NaN",
        "infinity": "Infinity",
        "-infinity": "-Infinity",
    }
    yield from _of("decimal", {name: Decimal128(text) for name, text in texts.items()})
    yield from _of(
        "decimal",
        {
            "-NaN": Element(0x13, b"\0" * 15 + b"\xfc"),
            "signalling NaN": Element(0x13, b"\0" * 15 + b"\x7e"),
            "a significand of more than 34 digits": Element(0x13, b"\xff" * 14 + b"\x13\x6c"),
        },
    )
    fine = {"15 places": "1.234567890123456", "18 places": "-0.000000000000000001", "19 places": "1E-19"}
    fine |= {"20 digits before the point": "9" * 20, "21 digits before the point": "1" + "0" * 20}
    yield from _of("fine_decimal", {name: Decimal128(text) for name, text in fine.items()})


def _texts() -> Iterator[BsonCase]:
    values = {
        "ordinary": "ordinary",
        "empty": "",
        "NUL": "\0",
        "NUL inside": "a\0b",
        "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
        "quotes and backslashes": "\\\"'\\\\n/\\u0041",
        "blanks": " \t\r\n\u00a0\u3000",
        "line separators": "\u2028\u2029\u0085",
        "emoji": "👩\u200d👩\u200d👧 🏳️\u200d🌈",
        "a combining mark alone": "\u0301",
        "decomposed": "e\u0301",
        "right to left": "\u202eשלום",
        "next to the surrogates": "\ud7ff\ue000",
        "no characters": "\ufdd0\uffff\U0010ffff",
        "byte order mark": "\ufefftext",
        "like JSON": '{"$oid": "000102030405060708090a0b"}',
        "like a date": "2024-01-01T00:00:00Z",
        "like a number": "1e5",
        "like NaN": "NaN",
        "like null": "null",
        "1 MB": "é😀x" * (MEGABYTE // 7),
    }
    yield from _of("string", values)


def _dates() -> Iterator[BsonCase]:
    held = {
        "2024-02-29T12:34:56.789": 1_709_210_096_789,
        "1970": 0,
        "1 ms before 1970": -1,
        "1969-07-20T20:17:40.999": -14_182_939_001,
        "1900-03-01": -2_203_891_200_000,
        "1582-10-15": -12_219_292_800_000,
        "1 ms before 1582-10-15": -12_219_292_800_001,
        "1677-09-21": -9_223_372_800_000,
        "2262-04-12": 9_223_372_800_000,
        "year 1": YEAR_1_MS,
        "the last ms of 9999": YEAR_10000_MS - 1,
    }
    yield from _of("date", {name: DatetimeMS(ms) for name, ms in held.items()})
    beyond = {
        "the ms before year 1": YEAR_1_MS - 1,
        "year 10000": YEAR_10000_MS,
        "smallest": -(2**63),
        "largest": 2**63 - 1,
    }
    yield from _not_of_secantus("date", {name: element(DatetimeMS(ms)) for name, ms in beyond.items()})


def _binaries() -> Iterator[BsonCase]:
    contents = {"ordinary": b"\x03\x00\x7f\x07", "empty": b"", "16 bytes": bytes(range(240, 256))}
    contents |= {"every byte": bytes(range(256)), "zeros": b"\0" * 5}
    for subtype in (0, 1, 2, 3, 5, 6, 7, 8, 9, 0x80, 0xFF):
        values = {name: Binary(content, subtype) for name, content in contents.items()}
        yield from _of(f"binary_{subtype:02x}", values)
    four = {name: Binary(content, 4) for name, content in contents.items() if name != "16 bytes"}
    yield from _of("binary_04", four)
    uuids = {
        "ordinary": uuid.UUID(int=2**100 + 7),
        "all zeros": uuid.UUID(int=0),
        "all ones": uuid.UUID(int=2**128 - 1),
    }
    yield from _of("uuid", {name: Binary(each.bytes, 4) for name, each in uuids.items()})
    yield from _of("uuid", {"15 bytes": Binary(b"\1" * 15, 4), "empty": Binary(b"", 4)})


def _regex(pattern: str, options: str = "") -> Element:
    return Element(0x0B, pattern.encode() + b"\0" + options.encode() + b"\0")


def _regexes() -> Iterator[BsonCase]:
    yield from _of(
        "regex",
        {
            "ordinary": _regex("^a.*b$", "i"),
            "empty": _regex(""),
            "no options": _regex("a"),
            **{f"option {letter}": _regex("a", letter) for letter in "ilmsux"},
            "every option": _regex("a", "ilmsux"),
            "slashes and quotes": _regex("/a\\/\"b'\\\\"),
            "no valid pattern": _regex("a(b[c{"),
            "line break": _regex("a\nb\tc"),
            "not ASCII": _regex("日本|😀"),
        },
    )
    options = {"options out of order": _regex("a", "xi"), "unknown options": _regex("a", "gqyz")}
    yield from _not_of_secantus("regex", options)


def _text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<i", len(content) + 1) + content + b"\0"


def _rare_types() -> Iterator[BsonCase]:
    stamps = {"ordinary": (1_700_000_000, 7), "0": (0, 0), "largest": (2**32 - 1, 2**32 - 1)}
    stamps |= {"increment alone": (0, 1), "beyond int32": (2**31, 2**31)}
    yield from _of("timestamp", {name: Element(0x11, struct.pack("<II", i, t)) for name, (t, i) in stamps.items()})
    codes = {"ordinary": "function() { return 1 }", "empty": "", "NUL inside": "a\0b", "not ASCII": "'日本 😀'"}
    yield from _of("code", {name: Code(text) for name, text in codes.items()})
    scopes: dict[str, dict[str, Any]] = {"ordinary": {"x": 1}, "empty scope": {}, "scope of many types": _many_types()}
    yield from _of("code_with_scope", {name: Code("f(x)", scope) for name, scope in scopes.items()})
    yield from _of("min_key", {"min key": MinKey()})
    yield from _of("max_key", {"max key": MaxKey()})
    symbols = {"ordinary": "name", "empty": "", "NUL inside": "a\0b", "not ASCII": "日本 😀"}
    yield from _not_of_secantus("symbol", {name: Element(0x0E, _text(text)) for name, text in symbols.items()})
    yield from _not_of_secantus("undefined", {"undefined": Element(0x06, b"")})
    pointer = Element(0x0C, _text("database.collection") + OID.binary)
    yield from _not_of_secantus("db_pointer", {"ordinary": pointer})


def _many_types() -> dict[str, Any]:
    return {
        "when": DatetimeMS(-1),
        "price": Decimal128("1.50"),
        "long": Int64(2**60),
        "bytes": Binary(b"\1", 0x80),
        "within": {"": ["x", None]},
    }


def _objects() -> Iterator[BsonCase]:
    yield from _of(
        "object",
        {
            "ordinary": {"n": 1, "s": "a", "deep": {"x": {"y": 1.5}}},
            "empty": {},
            "a member empty": {"n": 1, "deep": {}},
            "a member null": {"n": None, "s": "b"},
            "every member null": {"n": None, "s": None, "deep": None},
            "a new member": {"new": True},
            "members of many types": _many_types(),
            "an empty name": {"": 1},
            "names with $ and dots": {"$x": 1, "a.b": 2, "a.c.d": {"$set": 3}, "..": 4},
            "names with blanks": {"x y": 1, "tab\there": 2, "line\nbreak": 3, "   ": 4},
            "names of JSON": {'q"': 1, "\\b": 2, "/": 3, "~": 4, "~1": 5, "{a}": 6},
            "names not ASCII": {"日本": 1, "é": 2, "e\u0301": 3, "😀": 4},
            "names like each other's pointers": {"a/b": 1, "a~1b": 2},
        },
    )
    clashes = {"ordinary": {"name": 1}, "in letter case": {"Name": 2, "NAME": 3}, "as columns": {"a.b": 1, "a b": 2}}
    yield from _of("clashing_names", clashes)
    reference = {"$ref": "items", "$id": OID}
    references = {"ordinary": reference, "with database": reference | {"$db": "shop"}}
    yield from _of("reference", references | {"with more": reference | {"$db": "shop", "extra": 1}})
    # A code makes the column hold JSON, so that values of every type can stand side by side in it.
    wrappers: dict[str, Any] = {
        "oid": {"$oid": str(OID)},
        "date": {"$date": Int64(5)},
        "long": {"$numberLong": "5"},
        "decimal": {"$numberDecimal": "1.5"},
        "binary": {"$binary": "AQI=", "$type": "00"},
        "regex": {"$regex": "a", "$options": "i"},
        "timestamp": {"$timestamp": {"t": 1, "i": 2}},
        "code": {"$code": "f()"},
        "undefined": {"$undefined": True},
        "min key": {"$minKey": 1},
        "symbol": {"$symbol": "s"},
        "not quite an oid": {"$oid": "xyz"},
        "not quite a date": {"$date": "yesterday"},
        "not quite a long": {"$numberLong": 5},
        "more than a date": {"$date": Int64(5), "zone": "UTC"},
        "within": {"a": [{"b": {"$oid": str(OID)}}]},
    }
    yield from _of("wrapper", {"ordinary": Code("f()"), **wrappers})


def _arrays() -> Iterator[BsonCase]:
    yield from _of(
        "longs",
        {
            "ordinary": [1, 2],
            "empty": [],
            "one null": [None],
            "nulls between": [None, 1, None],
            "limits": [Int64(-(2**63)), Int64(2**63 - 1), -(2**31)],
            "10,000": list(range(10_000)),
        },
    )
    dates = {"ordinary": [DatetimeMS(0)], "before 1970": [DatetimeMS(-1), DatetimeMS(YEAR_1_MS)], "empty": []}
    yield from _of("dates", dates)
    nested = {"ordinary": [[1, 2], [3]], "empty": [], "empty inside": [[], [1], []], "null inside": [None, [None, 4]]}
    yield from _of("nested_array", nested)
    objects = {"ordinary": [{"a": 1, "b": ["x"]}], "a member missing": [{}, {"b": []}, None, {"a": 2}]}
    yield from _of("objects", objects)
    mixed: dict[str, Any] = {
        "ordinary": [1, "a", None, [2.5]],
        "empty": [],
        "every type": [*_many_types().values(), OID, True, float("nan"), -0.0, Code("f()"), MinKey()],
    }
    yield from _of("mixed_array", mixed)
