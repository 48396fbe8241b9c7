"""Comparing collections of the real platform."""

import shutil
from collections.abc import Sequence
from contextlib import closing

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.delta.pipeline_tables import collections_with_tables
from cdc_shared.delta.table_location import table_location
from cdc_shared.kafka.spec_topic import read_spec
from cdc_shared.kafka.topics import change_topic
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.rules.compiled import Rules
from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import resolve_reference, secret_providers
from reconciliation.reconciler.progress import Control, OnProgress
from reconciliation.reconciler.repair_engine import Requests
from reconciliation.reconciler.repair_requests import CollectionRequests
from reconciliation.reconciler.result import RunRequest, RunResult
from reconciliation.reconciler.run import run_collection
from reconciliation.reconciler.sides import Platform
from reconciliation.settings import Settings
from reconciliation.sources.dead_letter_keys import DeadLetterKeys
from reconciliation.workers.choice import runner_for


class PlatformRunner:
    """A `surroundings.CollectionRunner`."""

    def __init__(self, settings: Settings, keys: DataKeys) -> None:
        self._settings = settings
        self._keys = keys

    def spec(self, pipeline: str) -> PipelineSpec:
        """See `CollectionRunner`."""
        kafka = self._settings.kafka
        return read_spec(kafka.bootstrap_servers, pipeline, kafka.pipelines_topic)

    def collections(self, spec: PipelineSpec) -> Sequence[Collection]:
        """See `CollectionRunner`."""
        return collections_with_tables(self._settings.stores, spec)

    def run(self, request: RunRequest, report: OnProgress, control: Control) -> RunResult:
        """See `CollectionRunner`."""
        service = self._settings.service
        with closing(runner_for(service.workers, service.dask_scheduler)) as runner:
            settings = self._settings
            platform = Platform(
                settings.kafka, settings.stores, settings.secrets, lambda: self._keys, runner, service.work_dir
            )
            return run_collection(request, platform, report, control)

    def forget(self, run_id: str) -> None:
        """See `CollectionRunner`."""
        shutil.rmtree(self._settings.service.work_dir / run_id, ignore_errors=True)

    def open_requests(self, pipeline: str, collection: Collection) -> Requests:
        """What a repair of the collection asks of Kafka and the table. Raises `Transient`, `Fatal`."""
        servers, stores = self._settings.kafka.bootstrap_servers, self._settings.stores
        spec = self.spec(pipeline)
        providers = secret_providers(self._settings.secrets)
        rules = Rules.compile(
            spec.quality,
            collection.name,
            lambda reference: resolve_reference(reference, providers).reveal().encode(),
        )
        letters = DeadLetterKeys(
            LetterTopic.on(servers),
            pipeline,
            change_topic(pipeline, collection.database, collection.name),
            self._keys,
            stores,
            rules.key_text,
        )
        dead_letters = DeadLetters.on(servers, lambda: self._keys, stores, self.spec)
        store = table_location(spec, stores, collection).store
        return CollectionRequests(servers, pipeline, collection, store, letters.of, dead_letters)
