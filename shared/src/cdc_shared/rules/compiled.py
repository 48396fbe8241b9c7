"""The rules of one pipeline for one collection, ready to be applied: by the writer, a dry run, or reconciliation."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

from cdc_shared.dead_letters.rejection import Rejection
from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import Decoded
from cdc_shared.documents.policies import NONE, FieldPolicies
from cdc_shared.errors import Fatal
from cdc_shared.models import data_quality as q
from cdc_shared.rules.batch_transformation import BatchTransformation, Transformed
from cdc_shared.rules.masking import digest_with, masked_key
from cdc_shared.rules.paths import tokens_of
from cdc_shared.rules.rule_checks import InvalidRules, check_transformation, rule_label
from cdc_shared.rules.source_schema import MaskedField, masked_field, source_schema
from cdc_shared.rules.transformation import Counts, Document, steps_of
from cdc_shared.rules.validation import Validation, check_validation

Secrets = Callable[[str], bytes]
"""Reference → the secret. Raises `Fatal` when there is none, `Transient` when that cannot be told now."""

MIN_KEY_BYTES: Final = 16
_ID: Final = ("_id",)
_PROBE: Final = '"cdc.keyMask"'


class Rules:
    """What `compile` makes. It holds keys, and shows none of them."""

    def __init__(
        self, version: int, validation: Validation, rules: Sequence[q.TransformationRule], keys: Sequence[bytes]
    ) -> None:
        self.version = version
        """`QualitySpec.version`: what rows carry as `_cdc_rules_version`."""
        self._validation = validation
        self._rules = rules
        self._transformation = BatchTransformation(
            [step for rule, key in zip(rules, keys, strict=True) for step in steps_of(rule, key)]
        )
        id_key = next((k for r, k in zip(rules, keys, strict=True) if _is_for_id(r)), None)
        self._id_digest = None if id_key is None else digest_with(id_key)

    @classmethod
    def compile(cls, quality: q.QualitySpec, collection: str, secrets: Secrets) -> "Rules":
        """The rules that are for this collection, keys of masks resolved.

        Raises InvalidRules, which names the rule by its number, when a key cannot be had or is too short, or the rules
        are what `check_rules` refuses.
        """
        check_rules(quality)
        concerned = [(i, rule) for i, rule in enumerate(quality.transformation, 1) if rule.concerns(collection)]
        keys = [_key_of(rule, number, secrets) for number, rule in concerned]
        validation = Validation.compile(quality.validation, collection, quality.dirty_data.policy)
        return cls(quality.version, validation, [rule for _, rule in concerned], keys)

    def __repr__(self) -> str:
        return (
            f"Rules(version={self.version}, validation={len(self._validation.rules)}, "
            f"transformation={len(self._rules)})"
        )

    @property
    def validates(self) -> bool:
        """Whether documents may be rejected."""
        return bool(self._validation.rules)

    @property
    def transforms(self) -> bool:
        """Whether documents may be changed."""
        return bool(self._rules)

    @property
    def changes_keys(self) -> bool:
        """Whether `key_text` gives other keys."""
        return self._id_digest is not None

    def validate(self, decoded: Decoded, texts: Sequence[str], keys: Sequence[str]) -> dict[int, Rejection]:
        """Row → why its document is rejected; see `Validation.check`. Documents are validated as they came."""
        return self._validation.check(decoded, texts, keys)

    def validate_document(self, document: Document) -> Rejection | None:
        """Why a document, as `parse_document` gives it, is rejected; alone it is unique."""
        return self._validation.check_document(document)

    def transform_document(self, document: Document) -> Document:
        """A document, as `parse_document` gives it, after all rules. The one that is given is left as it is."""
        return self._transformation.document(document, Counts())

    def transform(self, decoded: Decoded, texts: Sequence[str], *, policies: FieldPolicies = NONE) -> Transformed:
        """Decoded documents after all rules: the rows that `decode` would give for the transformed documents.

        `texts` are those that were decoded. The result's schema is that of `decoded` with the rules applied to it.
        """
        return self._transformation.batch(decoded, texts, policies)

    def source_schema(self, table: t.DocumentSchema) -> t.DocumentSchema:
        """What a table's schema tells of the documents before the rules: fields that rules make or change are left
        out, so that the documents decide.
        """
        return source_schema(table, self._rules)

    def key_text(self, key_text: str) -> str:
        """What `_cdc_key` shows for a document with this key text: its HMAC when a rule hashes `_id`."""
        return key_text if self._id_digest is None else masked_key(self._id_digest, key_text)

    @cached_property
    def key_mask(self) -> str:
        """Tells rules apart that give rows other keys, another secret included; empty where keys are plain."""
        return self.key_text(_PROBE)[:16] if self.changes_keys else ""

    @cached_property
    def masks(self) -> tuple[MaskedField, ...]:
        """The masks and the fields that they are for, in the order of the rules."""
        return tuple(
            masked_field(self._rules, index) for index, rule in enumerate(self._rules) if isinstance(rule, q.MaskRule)
        )


def check_rules(quality: q.QualitySpec) -> None:
    """Refuse what can be refused without keys and documents. Raises InvalidRules: rule number, field, remedy."""
    check_transformation(quality.transformation)
    check_validation(quality)


def _is_for_id(rule: q.TransformationRule) -> bool:
    return isinstance(rule, q.Hash) and tokens_of(rule.path) == _ID


def _key_of(rule: q.TransformationRule, number: int, secrets: Secrets) -> bytes:
    """The rule's key; nothing for a rule that has none."""
    if not isinstance(rule, q.Hash | q.EmailMask):
        return b""
    try:
        key = secrets(rule.key)
    except Fatal as error:
        raise InvalidRules(f"{rule_label('transformation', number, rule)}: key: {error}") from None
    if len(key) < MIN_KEY_BYTES:
        raise InvalidRules(
            f"{rule_label('transformation', number, rule)}: key: {rule.key} has fewer than {MIN_KEY_BYTES} bytes and "
            "could be guessed; put a random one there (openssl rand -base64 32)"
        )
    return key
