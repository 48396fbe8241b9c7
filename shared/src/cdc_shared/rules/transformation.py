"""Transformation rules, document by document: this is what they mean. The Arrow engine must agree.

A document is what `extended_json.parse_document` gives. Null and missing are one, as in a table: null is never masked,
converted or preferred to a value.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.models import data_quality as q
from cdc_shared.rules.conversion import conversion
from cdc_shared.rules.masking import mask_of
from cdc_shared.rules.paths import (
    Pairs,
    Tokens,
    begins_with,
    edit_objects,
    edit_values,
    names_of,
    path_of,
    tokens_of,
    touch,
)

Document = dict[str, Any] | DuplicateKeys
Counts = Counter[tuple[str, str]]
"""Kind and path of a mask or convert rule → the values that it changed."""
AppliedRule = q.Rename | q.Convert | q.Drop | q.Constant | q.Flatten | q.Include | q.MaskRule
"""An exclude rule is applied as a drop rule for each of its paths."""
IncludeTree = dict[str, "IncludeTree | None"]
"""Name → what to keep of it; None keeps the whole."""

_NOTHING: Final = object()
_ID: Final = "_id"


@dataclass(frozen=True)
class Step:
    """One rule, ready to be applied. `key` is that of a keyed mask."""

    rule: AppliedRule
    key: bytes = field(default=b"", repr=False)

    @cached_property
    def paths(self) -> list[Tokens]:
        """The path that the rule names, or those of an include rule."""
        several = self.rule.paths if isinstance(self.rule, q.Include) else (self.rule.path,)
        return [tokens_of(path) for path in several]

    @property
    def tokens(self) -> Tokens:
        """The first path."""
        return self.paths[0]

    @property
    def counted(self) -> tuple[str, str]:
        """Under what the rule's changes are counted."""
        return self.rule.rule, path_of(self.tokens)

    def edit(self) -> "ValueEdit | None":
        """What a mask or convert rule does to a value; None of any other rule."""
        if isinstance(self.rule, q.Convert):
            return conversion(self.rule.to)
        return mask_of(self.rule, self.key) if isinstance(self.rule, q.MaskRule) else None

    def touches(self, pointer: Tokens) -> bool:
        """Whether the rule may change what stands at, above or below this pointer of `_cdc_rescued`."""
        if isinstance(self.rule, q.Include):
            return not any(begins_with(pointer, names_of(path)) for path in [*self.paths, (_ID,)])
        if any(touch(pointer, names_of(path)) for path in self.paths):
            return True
        *above, name = names_of(self.paths[0])
        siblings = len(pointer) > len(above) and begins_with(pointer, tuple(above))
        if isinstance(self.rule, q.Rename):
            return siblings and pointer[len(above)] == self.rule.to
        if isinstance(self.rule, q.Flatten):
            return siblings and pointer[len(above)].startswith(name + self.rule.separator)
        return False


ValueEdit = Callable[[Any], Any]
Transform = Callable[[Any, Counts], Any]
"""A document, or another value that the path begins in → the same with the rule applied; changes are counted."""


def steps_of(rule: q.TransformationRule, key: bytes = b"") -> list[Step]:
    """The steps that a rule consists of."""
    if isinstance(rule, q.Exclude):
        return [Step(q.Drop(rule="drop", path=path)) for path in rule.paths]
    return [Step(rule, key)]


def transform_of(step: Step, tokens: Tokens | None = None) -> Transform:
    """The rule as a function. `tokens` stands for the rule's path where only its end is left to go."""
    rule, path = step.rule, step.tokens if tokens is None else tokens
    edit = step.edit()
    if edit is not None:
        is_mask = isinstance(rule, q.MaskRule)
        return lambda value, counts: edit_values(value, path, _counting(edit, step, counts), fail_closed=is_mask)
    if isinstance(rule, q.Include):
        tree = include_tree(step.paths)
        return lambda value, _: kept(value, tree)
    return _member_transform(members_edit(rule, path[-1]), path[:-1])


def transform_document(steps: list[Transform], document: Document, counts: Counts) -> Document:
    """Apply rules one after the other."""
    for step in steps:
        document = step(document, counts)
    return document


def _counting(edit: ValueEdit, step: Step, counts: Counts) -> ValueEdit:
    counted, is_mask = step.counted, isinstance(step.rule, q.MaskRule)

    def counting(value: Any) -> Any:
        edited = edit(value)
        if is_mask or edited is not value:
            counts[counted] += 1
        return edited

    return counting


# --- rules about an object's members ----------------------------------------------------------------------------------


def _member_transform(edit: Callable[[Pairs], Pairs], parent: Tokens) -> Transform:
    return lambda value, _: edit_objects(value, parent, edit)


def members_edit(rule: AppliedRule, name: str) -> Callable[[Pairs], Pairs]:
    """What a rule about the member `name` does to the members of an object."""
    match rule:
        case q.Rename(to=to):
            return lambda pairs: _renamed(pairs, name, to)
        case q.Constant(value=value):
            return lambda pairs: _with_constant(pairs, name, value)
        case q.Flatten(separator=separator):
            return lambda pairs: _flattened(pairs, name, separator)
        case _:
            return _dropping(name)


def _dropping(name: str) -> Callable[[Pairs], Pairs]:
    return lambda pairs: [pair for pair in pairs if pair[0] != name]


def _renamed(pairs: Pairs, name: str, to: str) -> Pairs:
    values = [value for each, value in pairs if each == name]
    if not values:
        return pairs
    gives_way = to if any(value is not None for value in values) else name
    if gives_way == name and all(each != to for each, _ in pairs):
        return [(to if each == name else each, value) for each, value in pairs]
    return [(to if each == name else each, value) for each, value in pairs if each != gives_way]


def _with_constant(pairs: Pairs, name: str, value: Any) -> Pairs:
    result: Pairs = []
    is_set = False
    for each, old in pairs:
        if each != name:
            result.append((each, old))
        elif not is_set:
            result.append((name, value))
            is_set = True
    return result if is_set else [*result, (name, value)]


def _flattened(pairs: Pairs, name: str, separator: str) -> Pairs:
    leaves = [leaf for each, value in pairs if each == name for leaf in _leaves(value, (name,))]
    values = [(path, value) for path, value in leaves if value is not None]
    chosen: dict[str, Tokens] = {}
    for path, _ in sorted(values, key=lambda leaf: flattening_rank(leaf[0])):
        chosen.setdefault(separator.join(path), path)
    flat = [(separator.join(path), value) for path, value in values if chosen[separator.join(path)] == path]
    result: Pairs = []
    is_put = False
    for each, value in pairs:
        if each == name and is_object(value):
            result += [] if is_put else flat
            is_put = True
        elif each == name or each not in chosen:
            result.append((each, value))
    return result


def flattening_rank(path: Tokens) -> tuple[int, Tokens]:
    """Of members that come to the same name, that of the lowest rank keeps it: the least deep one."""
    return len(path), path


def _leaves(value: Any, path: Tokens) -> Iterator[tuple[Tokens, Any]]:
    """Paths and values of what is no object within an object; of anything else nothing."""
    for name, member in pairs_of(value):
        if is_object(member):
            yield from _leaves(member, (*path, name))
        else:
            yield (*path, name), member


def is_object(value: Any) -> bool:
    return type(value) is dict or type(value) is DuplicateKeys


def pairs_of(value: Any) -> Pairs:
    """Names and values of an object; none of anything else."""
    if type(value) is dict:
        return list(value.items())
    return list(value.pairs) if type(value) is DuplicateKeys else []


# --- include ----------------------------------------------------------------------------------------------------------


def include_tree(paths: list[Tokens]) -> IncludeTree:
    """What an include rule keeps, by name."""
    tree: IncludeTree = {_ID: None}
    for path in paths:
        *above, last = names_of(path)
        at: IncludeTree | None = tree
        for name in above:
            at = None if at is None else at.setdefault(name, {})
        if at is not None:
            at[last] = None
    return tree


def kept(value: Any, tree: Mapping[str, Any]) -> Any:
    """Of an object, or the objects of an array, what the tree names."""
    whole = _kept(value, tree)
    return None if whole is _NOTHING else whole


def _kept(value: Any, tree: Mapping[str, Any]) -> Any:
    if value is None:
        return None
    if type(value) is list:
        return [kept(element, tree) for element in value]
    if not is_object(value):
        return _NOTHING
    pairs = [
        (name, member if tree[name] is None else _kept(member, tree[name]))
        for name, member in pairs_of(value)
        if name in tree
    ]
    left = [pair for pair in pairs if pair[1] is not _NOTHING]
    return edit_objects(value, (), lambda _: left)
