"""What one collection is compared with what: its source, its change topic, its table, and the rules between them."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import TableLocation, table_location
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.kafka.spec_topic import read_spec
from cdc_shared.models.common import PipelineSpec
from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import resolve_reference, secret_providers
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings, SecretsSettings
from cdc_shared.source.document_reader import DocumentsRead, read_documents
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.reconciler.generations import Evidence, NewestTable
from reconciliation.reconciler.result import RunRequest, TopicPositions
from reconciliation.reconciler.rules_versions import RulesVersions
from reconciliation.sources.changed_keys import ChangedKeys
from reconciliation.sources.dead_letter_keys import DeadLetterKeys
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.newest_table import TableFollower
from reconciliation.workers.runner import Runner


@dataclass(frozen=True, slots=True)
class Platform:
    """How a run reaches what it compares.

    Attributes:
        data_keys: called when dead letters are to be opened. Raises `Fatal` when there are none here.
        runner: works the scans.
        directory: each run has one of its own below it.
    """

    kafka: KafkaSettings
    stores: ObjectStoreSettings
    secrets: SecretsSettings
    data_keys: Callable[[], DataKeys]
    runner: Runner
    directory: Path


@dataclass(frozen=True, slots=True)
class Sides:
    """Of one run; `open_sides` makes it."""

    source: MongodbSource
    events: ChangedKeys
    location: TableLocation
    rules: RulesVersions
    _request: RunRequest
    _platform: Platform

    def pin(self, version: int | None = None) -> PinnedTable:
        """Return a version of the table; with None, the newest. Raises `VersionGone`, `Transient` and `Fatal`."""
        topic = self._topic(self.events.ends())
        if version is None:
            return PinnedTable.newest(self.location.store, topic)
        return PinnedTable.at(self.location.store, topic, version)

    def spec_in_force(self) -> PipelineSpec:
        """Return the pipeline's spec as it is published now. Raises `Transient` and `Fatal`."""
        kafka = self._platform.kafka
        return read_spec(kafka.bootstrap_servers, self._request.spec.name, kafka.pipelines_topic)

    def evidence(self, scanned: PinnedTable | None = None, *, has_places: bool = False) -> Evidence:
        """Where differences are settled by.

        `scanned` is the version that was compared; with `has_places` every candidate names all the rows that it has
        there, so that only data files that came later are searched for others.
        """
        letters = DeadLetterKeys(
            LetterTopic.on(self._platform.kafka.bootstrap_servers),
            self._request.spec.name,
            self.events.topic,
            self._platform.data_keys(),
            self._platform.stores,
            self.rules.newest.rules.key_text,
        )
        follower = TableFollower(
            self.location.store,
            self.events.topic,
            None if scanned is None else scanned.table_id,
            scanned.snapshot.files.keys() if scanned is not None and has_places else (),
        )
        # It is given back only the versions that it gave out.
        table = cast(NewestTable, follower)
        return Evidence(self.events, self._documents, table, self.rules, letters.of)

    def _documents(self, keys: Collection[str]) -> DocumentsRead:
        return read_documents(self.source, self._request.collection, keys)

    def _topic(self, ends: TopicPositions) -> ChangeTopic:
        return ChangeTopic(self.events.topic, ends.topic_id, len(ends.offsets))


@contextmanager
def open_sides(request: RunRequest, platform: Platform) -> Iterator[Sides]:
    """Open what the run needs, and close it in the end. Raises `Fatal`, with the remedy, for what can never be."""
    spec, servers = request.spec, platform.kafka.bootstrap_servers
    providers = secret_providers(platform.secrets)
    with ExitStack() as opened:
        source = opened.enter_context(closing(MongodbSource(spec.source, platform.secrets)))
        events = opened.enter_context(closing(ChangedKeys(servers, spec.name, request.collection)))
        rules = RulesVersions(
            spec.name,
            request.collection.name,
            spec.quality,
            lambda: read_versions(servers, spec.name),
            lambda reference: resolve_reference(reference, providers).reveal().encode(),
        )
        location = table_location(spec, platform.stores, request.collection)
        yield Sides(source, events, location, rules, request, platform)
