"""What is different between two schemas of a Delta table, field by field, whoever made them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from cdc_shared.documents.delta_schema import NAME_KEY, TYPE_KEY
from cdc_shared.errors import Fatal

_MAPPING_PREFIX: Final = "delta.columnMapping."
_PHYSICAL_NAME: Final = f"{_MAPPING_PREFIX}physicalName"
_NAMED_CHANGES: Final = 10
"""So many changes are told one by one; of more, the number."""


class EventPosition(msgspec.Struct, frozen=True):
    """Where an event lies in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


class FieldChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one field.

    Attributes:
        path: JSON Pointer in MongoDB's names, `*` for every element of an array.
        column: the same in the table's names, as SQL writes it: `address.zip`, `contacts.element.email`.
        type: the field's type, as `cdc.type` names it; Delta's name where another program made the column.
        was: of `retyped` the type before, of `renamed` the column's name before.
        note: of `altered`, what is different.
        event: the first event whose document shows an added field; None where no event is behind the change.
    """

    change: Literal["added", "removed", "retyped", "renamed", "altered"]
    path: str
    column: str
    type: str
    was: str | None = None
    note: str | None = None
    event: EventPosition | None = None

    def __str__(self) -> str:
        match self.change:
            case "added":
                return f"column {self.column} ({self.type}) was added"
            case "removed":
                return f"column {self.column} ({self.type}) was dropped"
            case "retyped":
                return f"column {self.column} was {self.was} and is {self.type}"
            case "renamed":
                return f"column {self.was} was renamed to {self.column}, or dropped and {self.column} added"
            case "altered":
                return f"column {self.column} {self.note}"


def field_changes(before: str | None, after: str) -> list[FieldChange]:
    """Return what leads from one `schemaString` to another; from none, that every field was added.

    A struct that comes or goes is named, and then each of its members. Empty when only words or the order differ.

    Raises:
        Fatal: one of them is no Delta schema.
    """
    old, new = ({} if text is None else dict(_columns(_parsed(text), "", (), "")) for text in (before, after))
    renamed = _renamed(old, new)
    changes = [
        FieldChange("removed", column.path, column.name, column.type)
        for key, column in old.items()
        if key not in new and key not in renamed
    ]
    came_of = {became: key for key, became in renamed.items()}
    for key, column in new.items():
        known = old.get(came_of.get(key, key))
        if known is None:
            changes.append(FieldChange("added", column.path, column.name, column.type))
        else:
            changes += _changes_of(known, column)
    return changes


def told(changes: Sequence[FieldChange]) -> str:
    """Return the changes in words; members of a struct that came or went as a whole are not told again."""
    whole = {(change.change, change.path) for change in changes if change.change in ("added", "removed")}
    apart = [each for each in changes if not any((each.change, above) in whole for above in _above(each.path))]
    more = len(apart) - _NAMED_CHANGES
    texts = [str(change) for change in apart[:_NAMED_CHANGES]] + [f"and {more} changes more"] * (more > 0)
    return "; ".join(texts) or "the order of its columns, or what is said of them, was changed"


def schema_digest(schema_string: str) -> str:
    """Return a name for a schema, the same in whichever words a program writes it."""
    canonical = json.dumps(_parsed(schema_string), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class _Column(NamedTuple):
    path: str
    name: str
    place: int
    cdc_type: str | None
    delta: Any
    nullable: bool
    metadata: dict[str, Any]

    @property
    def type(self) -> str:
        return self.cdc_type or _type_text(self.delta)

    @property
    def is_opaque(self) -> bool:
        """Whether what lies below is how a scalar is stored, and no field of a document."""
        return self.cdc_type is not None and not self.cdc_type.rstrip(">").endswith("struct")


_Key = tuple[str, ...]


def _parsed(schema_string: str) -> list[dict[str, Any]]:
    try:
        schema = json.loads(schema_string)
        return [{**field, "name": str(field["name"]), "type": field["type"]} for field in schema["fields"]]
    except (ValueError, KeyError, TypeError):
        raise Fatal("the table's schema is not a Delta struct") from None


def _columns(fields: Sequence[dict[str, Any]], path: str, above: _Key, prefix: str) -> Iterator[tuple[_Key, _Column]]:
    """Yield every field with what tells it from its siblings: its column, where columns can be renamed the one in the
    files.
    """
    for place, field in enumerate(fields):
        metadata = field.get("metadata") or {}
        name = str(metadata.get(NAME_KEY, field["name"]))
        key = (*above, str(metadata.get(_PHYSICAL_NAME, field["name"])))
        column = _Column(
            path=f"{path}/{name.replace('~', '~0').replace('/', '~1')}",
            name=f"{prefix}{field['name']}",
            place=place,
            cdc_type=metadata.get(TYPE_KEY),
            delta=field["type"],
            nullable=bool(field.get("nullable", True)),
            metadata={
                word: value
                for word, value in metadata.items()
                if word not in (TYPE_KEY, NAME_KEY) and not word.startswith(_MAPPING_PREFIX)
            },
        )
        yield key, column
        if column.is_opaque:
            continue
        inner, below, inside = field["type"], column.path, f"{column.name}."
        while isinstance(inner, dict) and inner.get("type") == "array":
            inner, below, inside, key = inner["elementType"], f"{below}/*", f"{inside}element.", (*key, "element")
        if isinstance(inner, dict) and inner.get("type") == "struct":
            yield from _columns(inner["fields"], below, key, inside)


def _renamed(old: dict[_Key, _Column], new: dict[_Key, _Column]) -> dict[_Key, _Key]:
    """Return which column gave way to one of the same type in the same place."""
    came = {(key[:-1], new[key].place): key for key in new.keys() - old.keys()}
    renamed = {}
    for key in old.keys() - new.keys():
        became = came.get((key[:-1], old[key].place))
        if became is not None and isinstance(old[key].delta, str) and new[became].delta == old[key].delta:
            renamed[key] = became
    return renamed


def _changes_of(old: _Column, new: _Column) -> Iterator[FieldChange]:
    if old.name.rpartition(".")[2] != new.name.rpartition(".")[2]:
        yield FieldChange("renamed", new.path, new.name, new.type, was=old.name)
    before, after = _type_text(old.delta), _type_text(new.delta)
    if old.cdc_type != new.cdc_type and new.cdc_type is not None:
        before, after = old.type, new.type
    if before != after:
        yield FieldChange("retyped", new.path, new.name, after, was=before)
    if notes := list(_notes(old, new)):
        yield FieldChange("altered", new.path, new.name, new.type, note=" and ".join(notes))


def _notes(old: _Column, new: _Column) -> Iterator[str]:
    if old.nullable != new.nullable:
        yield "may be NULL now" if new.nullable else "is NOT NULL now"
    if _contains_null(old.delta) != _contains_null(new.delta):
        yield "has other rules for NULL in its elements"
    if old.cdc_type is not None and new.cdc_type is None:
        yield f"has lost {TYPE_KEY} ({old.cdc_type}) from its metadata"
    if old.path.rpartition("/")[2] != new.path.rpartition("/")[2] and old.name == new.name:
        yield f"has lost {NAME_KEY} from its metadata, or has another"
    differing = [
        key for key in sorted({*old.metadata, *new.metadata}) if old.metadata.get(key) != new.metadata.get(key)
    ]
    if differing:
        yield f"has other metadata ({', '.join(differing)})"


def _contains_null(delta: Any) -> list[bool]:
    found = []
    while isinstance(delta, dict) and delta.get("type") == "array":
        found.append(bool(delta.get("containsNull", True)))
        delta = delta["elementType"]
    return found


def _type_text(delta: Any) -> str:
    """Return a Delta type as people write it; of a struct, only that it is one."""
    if not isinstance(delta, dict):
        return str(delta)
    match delta.get("type"):
        case "array":
            return f"array<{_type_text(delta.get('elementType'))}>"
        case "map":
            return f"map<{_type_text(delta.get('keyType'))}, {_type_text(delta.get('valueType'))}>"
        case other:
            return str(other)


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
