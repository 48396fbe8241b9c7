"""Which transformation rules make no sense: found when they are set, not when documents come.

Rules that can never do anything, because one before them leaves nothing where they look, are refused as well. Above all
a mask that looks where its field no longer is would let the values through.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from cdc_shared.documents import types as t
from cdc_shared.documents.extended_json import INT64_MAX, INT64_MIN
from cdc_shared.errors import Fatal
from cdc_shared.models import data_quality as q
from cdc_shared.rules.paths import EVERY, Tokens, begins_with, names_of, path_of, tokens_of, touch

_ID: Final = "_id"


class InvalidRules(Fatal):
    """Rules that cannot be applied. The message names the rule by its number, the field, and the remedy."""


def rule_label(part: str, number: int, rule: q.TransformationRule | q.ValidationRule) -> str:
    """How a message names a rule: `quality.transformation rule 2 (hash /email)`, with its name if it has one; numbers
    count from 1.
    """
    name, path = getattr(rule, "name", None), getattr(rule, "path", None)
    return f"quality.{part} rule {number}{f' {name}' * bool(name)} ({rule.rule}{' ' + path if path else ''})"


def check_transformation(rules: Sequence[q.TransformationRule]) -> None:
    """Raises InvalidRules for the first rule that cannot be applied, whatever the documents are."""
    for index, rule in enumerate(rules):
        problem = next(_problems(rule), None) or _conflict(rules, index) or _uncovered(rules, index)
        if problem:
            raise InvalidRules(f"{rule_label('transformation', index + 1, rule)}: {problem}")


def paths_of(rule: q.TransformationRule) -> list[Tokens]:
    """The path or paths that a rule names."""
    paths = rule.paths if isinstance(rule, q.Include | q.Exclude) else (rule.path,)
    return [tokens_of(path) for path in paths]


# --- one rule alone ---------------------------------------------------------------------------------------------------


def _problems(rule: q.TransformationRule) -> Iterator[str]:
    paths = paths_of(rule)
    for path in paths:
        yield from _path_problems(rule, path)
    if len(set(paths)) < len(paths):
        yield "a path is given twice; remove one"
    match rule:
        case q.Rename():
            yield from _name_problems(paths[0][:-1], rule.to, "to")
            if rule.to == paths[0][-1]:
                yield "to: is the name that the field has; remove the rule"
        case q.Constant():
            yield from _name_problems(paths[0][:-1], paths[0][-1], "path")
            yield from _constant_problems(rule.value)
        case q.Flatten():
            yield from _flatten_problems(paths[0], rule.separator)


def _path_problems(rule: q.TransformationRule, path: Tokens) -> Iterator[str]:
    where = f"path {path_of(path)}"
    if path[0] == EVERY:
        yield f"{where}: a document is no array; begin with the name of a field"
    if path[0] == _ID and len(path) > 1:
        yield f"{where}: _id is the row's identity and is not changed in part; hash /_id as a whole"
    elif path[0] == _ID and not isinstance(rule, q.Hash | q.Include):
        yield f"{where}: _id is the row's identity; of all rules only hash, which keeps ids apart, can be for it"
    if path[-1] == EVERY and not isinstance(rule, q.Convert | q.MaskRule):
        yield f"{where}: elements of an array have no name; name the array itself, or a member of its objects"


def _name_problems(parent: Tokens, name: str, field: str) -> Iterator[str]:
    if not parent and name == _ID:
        yield f"{field}: _id is the row's identity; choose another name"
    if not parent and t.column_name(name).casefold().startswith(t.RESERVED_PREFIX):
        yield f"{field}: columns that begin with {t.RESERVED_PREFIX} are the platform's own; choose another name"
    if name in t.WRAPPER_NAMES:
        yield f"{field}: {name} is a name that Extended JSON spells types with; choose another name"
    if name == EVERY:
        yield f"{field}: a field of the name {EVERY} cannot be named by other rules; choose another name"


def _constant_problems(value: str | float) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield "value: is no finite number; give one, or a text"
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        yield "value: has more than 64 bits; give it as a text"


def _flatten_problems(path: Tokens, separator: str) -> Iterator[str]:
    prefix = t.column_name(path[-1] + separator).casefold()
    reserved = t.RESERVED_PREFIX
    if len(path) == 1 and (prefix.startswith(reserved) or reserved.startswith(prefix) or _ID.startswith(prefix)):
        yield f"separator: {path[-1]}{separator}… could become {_ID} or {reserved}…; choose another separator"


# --- rules among each other -------------------------------------------------------------------------------------------


def _conflict(rules: Sequence[q.TransformationRule], index: int) -> str | None:
    """Why a rule finds nothing, or what it should not find, after the rules before it."""
    rule = rules[index]
    for path in paths_of(rule):
        reached = names_of(path[:-1] if isinstance(rule, q.Constant) else path)
        for number in range(index, 0, -1):
            earlier = rules[number - 1]
            if not _meet(rule, earlier):
                continue
            if earlier == rule or (isinstance(rule, q.Constant) and _same_constant(rule, earlier)):
                return f"rule {number} does the same already; remove one of the two"
            if not reached or _makes(earlier, reached):
                break
            why = _obstacle(rule, reached, earlier)
            if why:
                return f"rule {number} ({earlier.rule}) {why}: name the field as it is then, reorder them or remove one"
    return None


def _meet(one: q.TransformationRule, other: q.TransformationRule) -> bool:
    """Whether there can be a collection that both are for."""
    return not one.collections or not other.collections or bool(set(one.collections) & set(other.collections))


def _same_constant(rule: q.Constant, earlier: q.TransformationRule) -> bool:
    return isinstance(earlier, q.Constant) and names_of(tokens_of(earlier.path)) == names_of(tokens_of(rule.path))


def _makes(earlier: q.TransformationRule, reached: Tokens) -> bool:
    """Whether the earlier rule is what puts a field there."""
    match earlier:
        case q.Constant():
            return reached == names_of(tokens_of(earlier.path))
        case q.Rename():
            return begins_with(reached, (*names_of(tokens_of(earlier.path))[:-1], earlier.to))
        case q.Flatten():
            *above, name = names_of(tokens_of(earlier.path))
            beside = begins_with(reached, tuple(above)) and len(reached) > len(above)
            return beside and reached[len(above)].startswith(name + earlier.separator)
    return False


def _obstacle(rule: q.TransformationRule, reached: Tokens, earlier: q.TransformationRule) -> str | None:
    paths = [names_of(path) for path in paths_of(earlier)]
    at_or_below = any(begins_with(reached, path) for path in paths)
    below = at_or_below and reached not in paths
    match earlier:
        case q.Include():
            is_kept = reached == (_ID,) or any(touch(reached, path) for path in paths)
            return None if is_kept else "does not keep the field"
        case q.Drop() | q.Exclude():
            return "leaves the field out" if at_or_below else None
        case q.Rename():
            return "gives the field another name" if at_or_below else None
        case q.Flatten():
            return "has moved the field" if below else None
        case q.Constant() | q.Convert(to="json"):
            return "leaves a value without fields there" if below else None
        case q.Convert():
            return None
    return "has masked the field" if below or (at_or_below and isinstance(rule, q.MaskRule)) else None


def _uncovered(rules: Sequence[q.TransformationRule], index: int) -> str | None:
    """Why values come unmasked to a name that an earlier rule masks."""
    rule = rules[index]
    if not isinstance(rule, q.Rename | q.Flatten):
        return None
    field = names_of(tokens_of(rule.path))
    masks = {
        number: names_of(tokens_of(earlier.path))
        for number, earlier in enumerate(rules[:index], 1)
        if isinstance(earlier, q.MaskRule) and _meet(rule, earlier)
    }
    for number, masked in masks.items():
        if _makes(rule, masked) and not any(_covers(mask, rule, field, masked) for mask in masks.values()):
            return (
                f"brings other values to {path_of(masked)}, which rule {number} has masked before: put that rule "
                "behind this one"
            )
    return None


def _covers(mask: Tokens, rule: q.Rename | q.Flatten, field: Tokens, masked: Tokens) -> bool:
    """Whether a mask is for what the rule brings to the masked name."""
    if begins_with(field, mask):
        return True
    if isinstance(rule, q.Rename):
        return begins_with((*field, *masked[len(field) :]), mask)
    flat = rule.separator.join(mask[len(field) - 1 :])
    return begins_with(mask, field) and masked[len(field) - 1] == flat
