"""What rules do to names, backwards and forwards: which field of the documents a column came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cdc_shared.documents import types as t
from cdc_shared.models import data_quality as q
from cdc_shared.rules.paths import EVERY, Tokens, begins_with, names_of, path_of, tokens_of

Fields = tuple[t.Field, ...]
_ELEMENTS: Final = (EVERY,)
_OF_ANY_VALUE: Final = (t.JSON, t.TEXT)
"""Types that a mask within leaves as they are."""


@dataclass(frozen=True)
class MaskedField:
    """A mask, and where its field is. Paths are as in rules; `*` stands only at their end."""

    kind: str
    path: str
    """As the rule names it."""
    sources: tuple[str, ...]
    """The fields of the documents that it may have come from."""
    table_path: str | None
    """What it is called in the table; None when a later rule leaves it out."""


def source_schema(table: t.DocumentSchema, rules: Sequence[q.TransformationRule]) -> t.DocumentSchema:
    """The fields of a table as documents have them: renamed back, and without those whose type is a rule's doing."""
    fields = table.fields
    for rule in reversed(rules):
        if isinstance(rule, q.Include | q.Exclude | q.Drop):
            continue
        *above, name = names_of(tokens_of(rule.path))
        undo = _undone(rule, name, top_level=not above)
        fields = _edited(fields, tuple(above), undo, is_mask=isinstance(rule, q.MaskRule))
    return t.DocumentSchema(fields)


def masked_field(rules: Sequence[q.TransformationRule], index: int) -> MaskedField:
    """Where the field of the mask rule at `index` is before the rules and after them."""
    rule = rules[index]
    if not isinstance(rule, q.MaskRule):
        raise TypeError(f"a rule {rule.rule} masks nothing")
    tokens = tokens_of(rule.path)
    sources: set[Tokens] = {names_of(tokens)}
    for earlier in reversed(rules[:index]):
        sources = {source for names in sources for source in _before(earlier, names)}
    after: Tokens | None = names_of(tokens)
    for later in rules[index + 1 :]:
        after = None if after is None else _after(later, after)
    end = _ELEMENTS if tokens[-1] == EVERY else ()
    return MaskedField(
        rule.rule,
        rule.path,
        tuple(sorted(path_of(source + end) for source in sources)),
        None if after is None else path_of(after + end),
    )


# --- names ------------------------------------------------------------------------------------------------------------


def _before(rule: q.TransformationRule, names: Tokens) -> set[Tokens]:
    """The fields that may have become this one."""
    if not isinstance(rule, q.Rename | q.Flatten):
        return {names}
    field = names_of(tokens_of(rule.path))
    *above, name = field
    if isinstance(rule, q.Rename):
        renamed = (*above, rule.to)
        return {names, (*field, *names[len(renamed) :])} if begins_with(names, renamed) else {names}
    beside = len(names) > len(above) and begins_with(names, tuple(above))
    return {names, field} if beside and names[len(above)].startswith(name + rule.separator) else {names}


def _after(rule: q.TransformationRule, names: Tokens) -> Tokens | None:
    """What a masked field is called after a rule; None when the rule leaves it out."""
    match rule:
        case q.Drop() | q.Constant():
            return None if begins_with(names, names_of(tokens_of(rule.path))) else names
        case q.Exclude():
            return None if any(begins_with(names, names_of(tokens_of(path))) for path in rule.paths) else names
        case q.Include():
            return names if any(begins_with(names, names_of(tokens_of(path))) for path in rule.paths) else None
    field = names_of(tokens_of(rule.path))
    *above, name = field
    if isinstance(rule, q.Rename) and begins_with(names, field):
        return (*above, rule.to, *names[len(field) :])
    if isinstance(rule, q.Rename) and begins_with(names, (*above, rule.to)):
        return names  # a sibling that gives way only where the renamed field has a value
    if isinstance(rule, q.Flatten) and begins_with(names, field) and names != field:
        return (*above, rule.separator.join((name, *names[len(field) :])))
    return names


# --- schemas ----------------------------------------------------------------------------------------------------------


def _undone(rule: q.TransformationRule, name: str, *, top_level: bool) -> Callable[[Fields], Fields]:
    match rule:
        case q.Rename(to=to):
            return lambda fields: _renamed(fields, to, name, top_level)
        case q.Flatten(separator=separator):
            prefix = name + separator
            return lambda fields: tuple(f for f in fields if f.name != name and not f.name.startswith(prefix))
        case _:
            return lambda fields: tuple(field for field in fields if field.name != name)


def _renamed(fields: Fields, name: str, to: str, top_level: bool) -> Fields:
    found = next((field for field in fields if field.name == name), None)
    if found is None:
        return fields
    others = tuple(field for field in fields if field.name not in (name, to))
    if not t.Struct(others).accepts_new(to, top_level=top_level, max_fields=len(fields) + 1):
        return others
    return tuple(
        t.Field(to, field.type) if field is found else field for field in fields if field is found or field in others
    )


def _edited(fields: Fields, parent: Tokens, edit: Callable[[Fields], Fields], is_mask: bool) -> Fields:
    """The fields with those of the objects at `parent` edited. A struct that loses all its fields is left out,
    and so is what ends the path of a mask: its type may be the mask's doing.
    """
    if not parent:
        return edit(fields)
    edited = []
    for field in fields:
        type_ = _edited_type(field.type, parent[1:], edit, is_mask) if field.name == parent[0] else field.type
        if not isinstance(type_, t.Null) or isinstance(field.type, t.Null):
            edited.append(replace(field, type=type_))
    return tuple(edited)


def _edited_type(type_: t.FieldType, parent: Tokens, edit: Callable[[Fields], Fields], is_mask: bool) -> t.FieldType:
    if isinstance(type_, t.List):
        element = _edited_type(type_.element, parent, edit, is_mask)
        return t.NULL if isinstance(element, t.Null) else t.List(element)
    if isinstance(type_, t.Struct):
        struct = t.Struct(_edited(type_.fields, parent, edit, is_mask))
        return struct if struct.stored else t.NULL
    return t.NULL if is_mask and type_ not in _OF_ANY_VALUE else type_
