"""Every version of a pipeline's rules, as one collection meets them: a row is compared under the one that made it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import parse_document
from cdc_shared.errors import CdcError, Fatal
from cdc_shared.models.data_quality import MONGODB_MAX_DOCUMENT_BYTES, QualitySpec
from cdc_shared.rules.compiled import Rules, Secrets

LOOKED_BACK: Final = 5
"""Versions that are asked whether they rejected what the newest one accepts."""


class Incomparable(CdcError):
    """Row and document cannot be compared: what made the row is not to be had. Says why, and what to do."""


class PublishedRules(NamedTuple):
    """One version."""

    quality: QualitySpec
    rules: Rules

    def rejection(self, text: str, size_bytes: int) -> Rejection | None:
        """Why a document (its text, and its size in BSON) has no row under these rules; None when it has."""
        limit = min(self.quality.dirty_data.max_document_size, MONGODB_MAX_DOCUMENT_BYTES)
        if size_bytes > limit:
            message = f"the document has {size_bytes:,} bytes in BSON, more than the {limit:,} that are allowed"
            return Rejection(ReasonCode.OVERSIZED_DOCUMENT, message)
        return self.rules.validate_document(parse_document(text)) if self.rules.validates else None


class RulesVersions:
    """Rules are read and compiled when they are first asked for. Not thread-safe."""

    def __init__(
        self,
        pipeline: str,
        collection: str,
        in_force: QualitySpec,
        published: Callable[[], Mapping[int, QualitySpec]],
        secrets: Secrets,
    ) -> None:
        """`collection` without its database; `published` is `rules_topic.read_versions` of the pipeline.

        Raises:
            InvalidRules: the rules in force cannot be applied: a mask's key is not to be had.
        """
        self._pipeline = pipeline
        self._collection = collection
        self._published = published
        self._secrets = secrets
        self._known: dict[int, QualitySpec] = {}
        self._compiled: dict[int, PublishedRules | Incomparable] = {}
        self.newest = PublishedRules(in_force, Rules.compile(in_force, collection, secrets))
        self._compiled[in_force.version] = self.newest

    def of(self, version: int | None) -> PublishedRules:
        """The rules that a row was made by; None and 0 are no rules.

        Raises:
            Incomparable: that version was never published, or a secret that it needs is gone.
        """
        found = self._compiled.get(version or 0)
        if found is None:
            found = self._compiled[version or 0] = self._compile(version or 0)
        if isinstance(found, Incomparable):
            raise found
        return found

    def before(self, version: int) -> Iterator[PublishedRules]:
        """The last few versions before one, newest first; those that cannot be applied any more are passed over."""
        self._read()
        for each in sorted((v for v in self._known if v < version), reverse=True)[:LOOKED_BACK]:
            try:
                yield self.of(each)
            except Incomparable:
                continue

    def keeps_rejected(self, since: int | None) -> bool:
        """Tell whether a rejected change may have left its row standing, under any of the rules since a version."""
        self._read()
        later = [quality for version, quality in self._known.items() if version >= (since or 0)]
        return any(each.dirty_data.rejected_updates == "keep" for each in [*later, self.newest.quality])

    def _read(self) -> None:
        if not self._known:
            self._known = {**self._published(), self.newest.quality.version: self.newest.quality}

    def _compile(self, version: int) -> PublishedRules | Incomparable:
        if version and version not in self._known:
            self._known = {**self._published(), self.newest.quality.version: self.newest.quality}
        quality = self._known.get(version) if version else QualitySpec()
        if quality is None:
            return Incomparable(
                f"its row was made by version {version} of the rules of pipeline {self._pipeline}, which was never "
                "published here; repair reads the document again under the rules in force"
            )
        try:
            return PublishedRules(quality, Rules.compile(quality, self._collection, self._secrets))
        except Fatal as error:
            return Incomparable(
                f"its row was made by version {version} of the rules, which cannot be applied any more: {error}; put "
                "the secret back, or repair, which reads the document again under the rules in force"
            )
