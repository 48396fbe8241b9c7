"""Reconciliation of a test's own pipeline, in the test's process: runs, repairs, and damage to be found by them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Collected
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from delta_reading import read_with_query_builder
from deltalake import DeltaTable
from mongo_pipeline import MongoPipeline
from people import document_id
from table_damage import FIELDS, HARMLESS, Harm, damage_table
from waiting import wait_until

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.delta.log import DeltaLog
from cdc_shared.documents import key_text
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import WRONG, DifferenceKind, JobOptions, Mode
from cdc_shared.settings import KafkaSettings, SecretsSettings
from cdc_shared.storage.object_store import open_store
from reconciliation.reconciler.difference import Difference, How
from reconciliation.reconciler.repair_engine import BATCH_KEYS, RepairEngine, RepairKey, RepairProgress, Requests
from reconciliation.reconciler.repair_requests import CollectionRequests
from reconciliation.reconciler.result import RunRequest, RunResult, Verified
from reconciliation.reconciler.run import forget_run, run_collection
from reconciliation.reconciler.sides import Platform, open_sides
from reconciliation.workers.threads import ThreadRunner

MASK_KEY: Final = {"TRIAL_MASK_KEY": "a key for the masks of a test, long enough"}
MASKS: Final = [{"rule": "hash", "path": "/email", "key": "env:TRIAL_MASK_KEY"}]
ROWS_TIMEOUT_S: Final = 180.0


class Uncontrolled:
    """Nobody pauses or cancels."""

    def check(self) -> None:
        """Go on."""


class Reconciling:
    """A collection of a pipeline whose rules mask `/email`; `directory` is the runs'."""

    def __init__(
        self, pipeline: MongoPipeline, collection: str, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {**pipeline.stack.writer_environment, **MASK_KEY}.items():
            monkeypatch.setenv(name, value)  # what the spec refers to, and workers read
        self.pipeline = pipeline
        self.collection = Collection(pipeline.database, collection)
        self.url = pipeline.table_url(collection)
        self.store = open_store(self.url, pipeline.stack.object_store)
        stack = pipeline.stack
        kafka = KafkaSettings(bootstrap_servers=stack.kafka, pipelines_topic=pipeline.specs_topic)
        self.platform = Platform(
            kafka, stack.object_store, SecretsSettings(), lambda: stack.data_keys, ThreadRunner(), directory
        )

    # -- the pipeline -------------------------------------------------------------------------------------------------

    def start(self, **quality: Any) -> None:
        """Start the pipeline with its masks in force from the first event on, and other rules beside them."""
        self.pipeline.publish_quality(transformation=MASKS, **quality)
        self.pipeline._environment.update(MASK_KEY)
        self.pipeline.start()

    def stop_writer(self) -> None:
        """Stop the pipeline's writer, as `desired: stopped` does."""
        self.pipeline.writer.stop()

    def start_writer(self) -> None:
        """Start it again."""
        self.pipeline.start_writer(MASK_KEY)

    def rows(self) -> int:
        """How many rows the table has, by its log."""
        if not DeltaTable.is_deltatable(self.url, self.pipeline.stack.object_store.storage_options()):
            return 0
        files = DeltaLog(self.store).load().files.values()
        return sum(
            _records(each.stats) - (each.deletion_vector.cardinality if each.deletion_vector else 0) for each in files
        )

    def await_texts(self, timeout_s: float) -> None:
        """Wait until each row has the `text` of its document: past the masks, and past reconciliation."""
        last: Counter[bool] = Counter()

        def same() -> bool:
            self.pipeline.check_running()
            source = self.pipeline.db[self.collection.name]
            expected = {key_text(each["_id"]): each["text"] for each in source.find({}, {"text": 1})}
            rows = read_with_query_builder(self.url, self.pipeline.stack.object_store).select(["_cdc_key", "text"])
            found = list(zip(*(rows.column(name).to_pylist() for name in rows.column_names), strict=True))
            last.clear()
            last.update(expected.get(key) == text for key, text in found)
            return len(found) == len(expected) == last[True]

        wait_until(same, timeout_s, f"{self.url} has the documents' texts", poll_s=0.5)

    def await_rows(self, count: int) -> None:
        """Wait until there are so many."""

        def there() -> bool:
            self.pipeline.check_running()
            return self.rows() == count

        wait_until(there, ROWS_TIMEOUT_S, f"{self.url} has {count:,} rows", poll_s=0.3)

    # -- damage -------------------------------------------------------------------------------------------------------

    def damage(
        self, rng: random.Random, each: Mapping[Harm, int], extra: Sequence[int], only: Collected[str] | None = None
    ) -> dict[str, Harm]:
        """Damage the table, whose writer was stopped, and accept that. `extra`: numbers of documents never made."""
        done = damage_table(
            self.url, self.pipeline.stack.object_store, rng, each, [document_id(n) for n in extra], only=only
        )
        self._accept()
        return done

    def _accept(self) -> None:
        pipeline = self.pipeline
        ended = subprocess.run(
            [sys.executable, "-m", "delta_writer", "accept", pipeline.name, self.collection.name, "--yes"],
            env={"PATH": "", **pipeline.stack.writer_environment, "CDC_PIPELINES_TOPIC": pipeline.specs_topic},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert "accepted, as version" in ended.stdout

    # -- runs and repairs ---------------------------------------------------------------------------------------------

    def request(
        self,
        mode: Mode = Mode.FULL,
        keys: Sequence[str] | None = None,
        verified: Verified | None = None,
        **options: Any,
    ) -> RunRequest:
        """A run of its own; `options` as in `JobOptions`."""
        return RunRequest(
            str(uuid.uuid4()), self.pipeline.spec, self.collection, mode, JobOptions(**options), keys, verified
        )

    def run(self, request: RunRequest | None = None) -> RunResult:
        """Run it to its end."""
        asked = request or self.request()
        result = run_collection(asked, self.platform, lambda _: None, Uncontrolled())
        forget_run(self.platform, asked.run_id)
        return result

    def repair(
        self,
        differences: Sequence[Difference],
        max_keys: int = 1_000_000,
        beside: Callable[[Requests], Requests] = lambda requests: requests,
        batch_keys: int = BATCH_KEYS,
    ) -> RepairProgress:
        """Repair those whose source key is known, and wait until the table has come past all requests.

        `beside` stands between the engine and Kafka, to do something at the moment of a request.
        """
        keys = [
            RepairKey(number, each.kind, each.key, each.source_key)
            for number, each in enumerate(differences)
            if each.source_key is not None
        ]
        stack, servers = self.pipeline.stack, self.pipeline.stack.kafka
        dead_letters = DeadLetters.on(servers, lambda: stack.data_keys, stack.object_store, self._spec)
        with open_sides(self.request(), self.platform) as sides:
            requests = CollectionRequests(
                servers, self.pipeline.name, self.collection, self.store, sides.evidence().letters, dead_letters
            )
            engine = RepairEngine(beside(requests), Uncontrolled(), batch_keys=batch_keys)
            return engine.apply(keys, max_keys, lambda _: None)

    def _spec(self, name: str) -> PipelineSpec:
        assert name == self.pipeline.name
        return self.pipeline.spec


def wrong(result: RunResult) -> list[Difference]:
    """What a run says is wrong."""
    return [each for each in result.differences if each.kind in WRONG]


def only_wrong(result: RunResult) -> RunResult:
    """The run without what is not, or not yet, wrong."""
    counts = {kind: number for kind, number in result.summary.differences.items() if kind in WRONG}
    return replace(result, differences=wrong(result), summary=replace(result.summary, differences=counts))


def assert_explained(result: RunResult, done: Mapping[str, Harm]) -> None:
    """What was damaged is found and rightly explained, each of it, and nothing else."""
    expected = {key: (_KINDS[harm], FIELDS.pointer(harm)) for key, harm in done.items() if harm not in HARMLESS}
    found = {each.key: each for each in result.differences}
    assert len(found) == len(result.differences)
    told = f"{Counter(kind for kind, _ in expected.values())} expected, {result.summary} found"
    assert found.keys() == expected.keys(), told
    for key, (kind, pointer) in expected.items():
        difference, harm = found[key], done[key]
        assert difference.kind is kind, (harm, difference)
        assert difference.explanation
        assert difference.source_key is not None, difference
        if pointer is not None:
            assert [field.pointer for field in difference.fields] == [pointer], difference
            assert difference.fields[0].how is (How.TYPE if harm is Harm.TYPE else How.VALUE), difference
    counts = Counter(kind for kind, _ in expected.values())
    assert {kind: number for kind, number in result.summary.differences.items() if number} == counts


_KINDS: Final = {
    Harm.MISSING: DifferenceKind.MISSING,
    Harm.EXTRA: DifferenceKind.EXTRA,
    Harm.DUPLICATED: DifferenceKind.DUPLICATED,
    Harm.DUPLICATED_ALTERED: DifferenceKind.DUPLICATED,
    **dict.fromkeys((Harm.TEXT, Harm.NESTED, Harm.TYPE, Harm.MASKED), DifferenceKind.DIFFERENT),
}


def _records(stats: str | None) -> int:
    return int(json.loads(stats or "{}")["numRecords"])
