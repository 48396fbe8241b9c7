"""The data-quality rules that a pipeline applies now; they may be replaced while it runs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from cdc_shared.errors import CdcError
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.data_quality import DirtyDataSpec, QualitySpec
from cdc_shared.rules.compiled import Rules, Secrets

log = get_logger(__name__)

_ANY_OTHER: Final = ""
"""Stands for the collections that no rule names."""


@dataclass(frozen=True, slots=True)
class DocumentQuality:
    """What is asked of the documents of one collection. The same object as long as nothing of it changes."""

    dirty_data: DirtyDataSpec
    rules: Rules


class _Edition:
    """One version of the rules, made ready for each collection when its first batch comes."""

    def __init__(self, quality: QualitySpec, secrets: Secrets) -> None:
        self.quality = quality
        self._secrets = secrets
        self._ready: dict[str, DocumentQuality] = {}

    @property
    def collections(self) -> list[str]:
        return list(self._ready)

    def check(self, collections: Collection[str] = ()) -> None:
        """Raise what keeps these rules from being applied, to these collections and to those that the rules name."""
        for rule in (*self.quality.validation, *self.quality.transformation):
            collections = {*collections, *rule.collections}
        for collection in {*collections, _ANY_OTHER}:
            self.of(collection)

    def of(self, collection: str) -> DocumentQuality:
        ready = self._ready.get(collection)
        if ready is None:
            rules = Rules.compile(self.quality, collection, self._secrets)
            ready = self._ready[collection] = DocumentQuality(self.quality.dirty_data, rules)
        return ready


class QualityInForce:
    """Read by the pipeline's thread once for each batch, replaced by the service's."""

    def __init__(
        self,
        quality: QualitySpec,
        secrets: Secrets,
        report: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """`report` gets what is wrong with rules that should be in force and are not; nothing once they are."""
        self._secrets = secrets
        self._report = report
        self._edition = _Edition(quality, secrets)

    @property
    def version(self) -> int:
        """The version of the rules."""
        return self._edition.quality.version

    @property
    def dirty_data(self) -> DirtyDataSpec:
        """What becomes of records that are no change of a document."""
        return self._edition.quality.dirty_data

    def check(self) -> None:
        """Find out whether the rules can be applied. Raises `Fatal` that names the rule, or the secret, and the remedy;
        `Transient` when the keeper of the secrets is away.
        """
        self._edition.check()

    def of(self, collection: str) -> DocumentQuality:
        """Return what is in force for a collection. Take it once for a batch: the next look may see another."""
        return self._edition.of(collection)

    def replace(self, quality: QualitySpec) -> bool:
        """Put other rules in force, from the next batch on. Those that cannot be applied leave the last good ones."""
        now = self._edition
        edition = _Edition(quality, self._secrets)
        try:
            edition.check(now.collections)
        except CdcError as error:
            text = (
                f"version {quality.version} of the rules is not in force, version {now.quality.version} stays: {error}"
            )
            log.error("rules not usable", reason=text)
            self._report([text])
            return False
        self._edition = edition
        self._report([])
        log.info("rules replaced", version=quality.version, previous=now.quality.version)
        return True
