"""Validation rules, compiled for one collection: which documents of a batch fail, at the first rule that they fail.

`check_document` says it of one document and is the definition; `check` says the same of a decoded batch, on whole
columns where it can. What each rule means, value by value: docs/architecture/data-quality.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents.decoder import Decoded
from cdc_shared.models import data_quality as q
from cdc_shared.rules.batch import Batch, pointer_pattern
from cdc_shared.rules.checks import LengthWithin, Matches, OneOf, TypeIs, ValueCheck, range_check
from cdc_shared.rules.comparison import FieldsCompared
from cdc_shared.rules.field_values import Mask, mask_of, values_at
from cdc_shared.rules.filter_check import FilterCheck
from cdc_shared.rules.paths import EVERY, Tokens, tokens_of
from cdc_shared.rules.rule_checks import InvalidRules, rule_label
from cdc_shared.rules.sql_check import SqlCheck
from cdc_shared.rules.uniqueness import NoValueTwice


class RowCheck(Protocol):
    """What a rule asks of rows."""

    @property
    def failure(self) -> str:
        """What is said of a document that fails, after the field's name. Holds nothing of the document."""

    def passes(self, document: Any) -> bool:
        """Whether a document passes."""

    def failing(self, batch: Batch) -> Mask:
        """The rows of a batch that fail; rows that are not open may be wrong."""


@dataclass(frozen=True)
class EveryValue:
    """Every value that a path reaches is missing or null, or passes."""

    tokens: Tokens
    check: ValueCheck

    @property
    def failure(self) -> str:
        return self.check.failure

    def passes(self, document: Any) -> bool:
        return all(value is None or self.check.accepts(value) for value in values_at(document, self.tokens))

    def failing(self, batch: Batch) -> Mask:
        reached = batch.reach(self.tokens)
        unsure = batch.touched(pointer_pattern(self.tokens))
        unsure[reached.opaque] = True
        failing = batch.none()
        present = reached.present
        accepted = self.check.accepted(reached.type, reached.values) if present.any() else True
        if accepted is None:
            unsure[reached.starts(present)] = True
        elif accepted is not True:
            wrong = present if accepted is False else present & ~mask_of(accepted)
            failing[reached.starts(wrong)] = True
        return batch.decide(failing, unsure, self.passes)


@dataclass(frozen=True)
class EveryValuePresent:
    """No value that a path reaches is missing or null."""

    tokens: Tokens
    failure: str = "has no value"

    def passes(self, document: Any) -> bool:
        return all(value is not None for value in values_at(document, self.tokens))

    def failing(self, batch: Batch) -> Mask:
        reached = batch.reach(self.tokens)
        unsure = batch.touched(pointer_pattern(self.tokens))
        unsure[reached.opaque] = True
        failing = batch.none()
        failing[reached.starts(~reached.present)] = True
        return batch.decide(failing, unsure, self.passes)


@dataclass(frozen=True)
class Validation:
    """The rules of one collection, in their order."""

    rules: tuple["CompiledRule", ...]

    @classmethod
    def compile(cls, rules: Sequence[q.ValidationRule], collection: str, default_policy: q.OnFailure) -> "Validation":
        """All the rules of a pipeline → those for this collection. Raises InvalidRules."""
        return cls(
            tuple(
                _compiled(number, rule, default_policy)
                for number, rule in enumerate(rules, start=1)
                if rule.concerns(collection)
            )
        )

    def check(self, decoded: Decoded, texts: Sequence[str], keys: Sequence[str]) -> dict[int, Rejection]:
        """Row → why it is rejected, by the first rule that it fails. Rows that are invalid are passed over.

        `texts` are the documents that `decoded` was made of, `keys` their keys.
        """
        batch = Batch(decoded, texts, keys)
        rejections: dict[int, Rejection] = {}
        for rule in self.rules:
            failed = rule.check.failing(batch) & batch.is_open
            batch.is_open &= ~failed
            rejections |= dict.fromkeys(np.flatnonzero(failed).tolist(), rule.rejection)
        return dict(sorted(rejections.items()))

    def check_document(self, document: Any) -> Rejection | None:
        """Why a document, of values as `parse_document` gives them, is rejected; alone it is unique."""
        return next((rule.rejection for rule in self.rules if not rule.check.passes(document)), None)


@dataclass(frozen=True)
class CompiledRule:
    check: RowCheck
    rejection: Rejection


def check_validation(quality: q.QualitySpec) -> None:
    """Raises InvalidRules for the first validation rule that makes no sense, whatever the documents are."""
    named: dict[str, int] = {}
    for number, rule in enumerate(quality.validation, start=1):
        _compiled(number, rule, quality.dirty_data.policy)
        if rule.name is None:
            continue
        if rule.name in named:
            label = rule_label("validation", number, rule)
            raise InvalidRules(f"{label}: rule {named[rule.name]} is called {rule.name} too; give one another name")
        named[rule.name] = number


def rule_name(number: int, rule: q.ValidationRule) -> str:
    """What a rule is called in metrics and reasons: its own name, or its kind and path, or its kind and number."""
    return rule.name or f"{rule.rule}:{number if isinstance(rule, q.Sql | q.Filter) else rule.path}"


def _compiled(number: int, rule: q.ValidationRule, default_policy: q.OnFailure) -> CompiledRule:
    try:
        check = _row_check(rule)
    except ValueError as error:
        raise InvalidRules(f"{rule_label('validation', number, rule)}: {error}") from None
    name = rule_name(number, rule)
    field = "" if isinstance(rule, q.Sql | q.Filter) else f"{rule.path} "
    message = f"rule {name}: {field}{check.failure}"
    code = ReasonCode.FILTERED if isinstance(rule, q.Filter) else ReasonCode.VALIDATION_FAILED
    return CompiledRule(check, Rejection(code, message, rule.on_failure or default_policy, name))


def _row_check(rule: q.ValidationRule) -> RowCheck:
    """Raises ValueError with what is wrong and the remedy."""
    if isinstance(rule, q.Sql):
        return SqlCheck.of(rule.expression)
    if isinstance(rule, q.Filter):
        return FilterCheck.of(rule.expression)
    tokens = _field_tokens(rule.path)
    match rule:
        case q.Required():
            return EveryValuePresent(tokens)
        case q.Unique():
            return NoValueTwice(tokens)
        case q.Compare():
            _field_tokens(rule.other)
            return FieldsCompared.of(rule)
        case q.TypeCheck():
            return EveryValue(tokens, TypeIs.of(rule))
        case q.Range():
            return EveryValue(tokens, range_check(rule))
        case q.Length():
            return EveryValue(tokens, LengthWithin.of(rule))
        case q.Regex():
            return EveryValue(tokens, Matches.of(rule))
        case q.Enum():
            return EveryValue(tokens, OneOf.of(rule))


def _field_tokens(path: str) -> Tokens:
    tokens = tokens_of(path)
    if tokens[0] == EVERY:
        raise ValueError(f"names no field: a document is no array, so {path} cannot begin with {EVERY}")
    return tokens
