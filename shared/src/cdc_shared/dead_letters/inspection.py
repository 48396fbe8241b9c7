"""Looking into a dead letter: its structure for everybody, its content for those who are permitted.

Masked, every value is replaced by the name of its BSON type, and the elements of an array by their different
structures; the names of fields stay. What is no JSON, or nests too deep, is told by its size alone.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any, Final

from cdc_shared.dead_letters.letter import Letter
from cdc_shared.dead_letters.sealed_record import RawRecord
from cdc_shared.documents import InvalidDocument, dump, parse
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.documents.envelope import OPERATIONS
from cdc_shared.documents.extended_json import MAX_NESTING
from cdc_shared.documents.kinds import NOTHING, kind_name

DOCUMENTS: Final = ("after", "before")
"""Members of an envelope that hold a document as text."""
_KEY_ID: Final = "id"
_SOURCE: Final = "source"
_PLACE_AND_TIME: Final = ("db", "collection", "ts_ms")


@dataclass(frozen=True, slots=True)
class ShownLetter:
    """A letter and what is in it. `key` and `value` are the record's, as JSON can hold them; `revealed`: unmasked."""

    letter: Letter
    written_ms: int
    key: Any
    value: Any
    revealed: bool


def shown_record(record: RawRecord, *, reveal: bool) -> tuple[Any, Any]:
    """The record's key and value, masked unless `reveal`."""
    key, value = _json(record.key), _json(record.value)
    if isinstance(key, dict) and isinstance(key.get(_KEY_ID), str):
        key = {**key, _KEY_ID: _document(key[_KEY_ID], reveal=reveal)}
    else:
        key = _readable(key) if reveal else structure(key)
    if isinstance(value, dict):
        value = {name: _member(name, member, reveal=reveal) for name, member in value.items()}
    else:
        value = _readable(value) if reveal else structure(value)
    return key, value


def structure(value: Any) -> Any:
    """A value without its content: a dict keeps its names; anything else is told by its type."""
    if isinstance(value, _Unreadable):
        return f"{len(value.content)} bytes that are no JSON"
    if isinstance(value, dict):
        return {name: structure(member) for name, member in value.items()}
    if isinstance(value, list):
        different: list[Any] = []
        for element in map(structure, value):
            if element not in different:
                different.append(element)
        return different
    kind = kind_name(value)
    return "null" if kind == NOTHING else kind


@dataclass(frozen=True, slots=True)
class _Unreadable:
    content: bytes


def _json(content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _Unreadable(content)
    return _Unreadable(content) if _nests_too_deep(value) else value


def _nests_too_deep(value: Any) -> bool:
    """Whether it is deeper than an envelope can be; then whoever walks through it would not come to its end."""
    level = [value]
    for _ in range(MAX_NESTING):
        within = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [member for members in within for member in members]
        if not level:
            return False
    return True


def _readable(value: Any) -> Any:
    """The same with what JSON cannot hold as text; bytes that are no UTF-8 in base64."""
    if isinstance(value, _Unreadable):
        try:
            return value.content.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value.content).decode("ascii")}
    return value


def _member(name: str, value: Any, *, reveal: bool) -> Any:
    if name in DOCUMENTS and isinstance(value, str):
        return _document(value, reveal=reveal)
    if reveal:
        return value
    if name == "op" and value in OPERATIONS:
        return value
    if name == _SOURCE and isinstance(value, dict):
        return {each: value[each] if each in _PLACE_AND_TIME else structure(value[each]) for each in value}
    return structure(value)


def _document(text: str, *, reveal: bool) -> Any:
    """A document's text as canonical Extended JSON, or its structure; one that is no document as it is."""
    try:
        value = parse(text)
    except InvalidDocument:
        return text if reveal else f"{len(text)} characters that are no document"
    if reveal:
        return json.loads(dump(value))
    return "duplicate names" if isinstance(value, DuplicateKeys) else structure(value)
