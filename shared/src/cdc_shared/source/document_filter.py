"""Filters that people give: what of MongoDB's query language they may use, and the documents that match one.

Only operators that look at one document's own values are taken: none that runs code (`$where`, `$function`, `$expr`),
needs an index of its own kind (`$text`, `$near`) or takes other collections into account. The list names what is
allowed, so that an operator that MongoDB gets one day is refused until somebody has looked at it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import bson
from bson import Binary, CodecOptions, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from cdc_shared.documents import InvalidDocument, document_key, parse
from cdc_shared.documents.bson_values import RegularExpression
from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.source.mongodb_source import MongodbSource

MAX_FILTER_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 20
FIND_TIMEOUT_S: Final = 15.0
MAX_PATH_CHARACTERS: Final = 200

_COMPARISONS: Final = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$mod", "$regex", "$options")
_LOGIC: Final = ("$and", "$or", "$nor", "$not")
_SHAPES: Final = ("$exists", "$type", "$all", "$size", "$elemMatch")
_BITS: Final = ("$bitsAllSet", "$bitsAllClear", "$bitsAnySet", "$bitsAnyClear")
ALLOWED_OPERATORS: Final = frozenset({*_COMPARISONS, *_LOGIC, *_SHAPES, *_BITS})

# Exactly these: code that a server may run is a kind of string to the driver.
_PLAIN: Final = (str, bool, int, float, type(None), bytes)
_BSON: Final = (Binary, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp)
_RAW: Final = CodecOptions[RawBSONDocument](document_class=RawBSONDocument)

Filter = dict[str, Any]
"""A checked filter, as the driver takes it."""


class InvalidFilter(Fatal):
    """A filter that cannot be used. The message names the place in it and quotes no value."""


class TooManyMatches(Fatal):
    """More documents match than may be asked for at a time."""


def parse_filter(filter_: Mapping[str, Any]) -> Filter:
    """Check a filter, which is Extended JSON (either version) as decoded from JSON; return it with BSON's values.

    Raises:
        InvalidFilter: it is empty, too large, too deep, no Extended JSON, or has an operator that is not allowed.
    """
    if not filter_:
        raise InvalidFilter("the filter is empty, and would match every document: name the collection alone instead")
    _check_depth(filter_)
    try:
        parsed = parse(json.dumps(filter_))
    except (InvalidDocument, TypeError) as error:
        raise InvalidFilter(f"the filter is not Extended JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidFilter("the filter is a single value; write the name of a field and what it must be")
    checked: Filter = _checked(parsed, "")
    try:
        size = len(bson.encode(checked))
    except (BSONError, OverflowError, ValueError):
        raise InvalidFilter("the filter holds what BSON cannot hold, for example a NUL in a field's name") from None
    if size > MAX_FILTER_BYTES:
        raise InvalidFilter(f"the filter has {size:,} bytes, and may have {MAX_FILTER_BYTES:,}: ask in several parts")
    return checked


def matching_keys(source: MongodbSource, collection: Collection, filter_: Filter, limit: int) -> list[str]:
    """Return the key texts (`documents.key_text` of the `_id`) of the documents that match now, in no order.

    Raises:
        TooManyMatches: more than `limit` match.
        Fatal: the source cannot look through the collection in time, or does not take the filter.
        Transient: the source is away.
    """
    name = f"{collection.database}.{collection.name}"
    with source.asking(f"find the documents of {name} that match the filter") as session:
        documents: Any = source.database(collection.database).get_collection(collection.name, codec_options=_RAW)
        cursor = documents.find(
            filter_, {"_id": 1}, session=session, limit=limit + 1, max_time_ms=int(FIND_TIMEOUT_S * 1000)
        )
        try:
            # Of a large reply the driver gives memoryviews, whatever its types say.
            keys = [document_key(bytes(each.raw)) for each in cursor]
        except OperationFailure as error:
            if error.timeout:
                raise Fatal(
                    f"the source found the documents of {name} that match the filter not within {FIND_TIMEOUT_S:.0f} "
                    "s: make an index for it, or resync the whole collection"
                ) from None
            raise
    if len(keys) > limit:
        raise TooManyMatches(
            f"more than {limit:,} documents of {name} match the filter: narrow it, or resync the whole collection"
        )
    return keys


def _checked(value: Any, where: str) -> Any:
    """Return the value as the driver takes it. `where` is its path, for the message."""
    if isinstance(value, dict):
        return {_checked_name(name, where): _checked(inner, f"{where}/{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_checked(inner, f"{where}/{number}") for number, inner in enumerate(value)]
    if isinstance(value, RegularExpression):
        return Regex(value.pattern, value.options)
    if type(value) in (*_PLAIN, *_BSON):
        return value
    raise InvalidFilter(
        f"the filter has at {where or '/'} a value of a kind that it may not have: {type(value).__name__}"
    )


def _checked_name(name: str, where: str) -> str:
    if name.startswith("$") and name not in ALLOWED_OPERATORS:
        raise InvalidFilter(
            f"the filter has at {where[:MAX_PATH_CHARACTERS] or '/'} the operator {name[:40]}, which is not allowed; "
            f"allowed are {', '.join(sorted(ALLOWED_OPERATORS))}, and values in Extended JSON"
        )
    return name


def _check_depth(value: Any) -> None:
    """Without recursion: what is too deep must not be walked."""
    level: Iterator[Any] = iter([value])
    for _ in range(MAX_DEPTH):
        level = iter([inner for each in level for inner in _within(each)])
    if next(level, None) is not None:
        raise InvalidFilter(f"the filter is nested too deep: it may have {MAX_DEPTH} levels")


def _within(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []
