"""One task of a source scan: the documents of a chunk → hashes of the rows that they should have."""

import threading
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bson import Timestamp

from cdc_shared.delta.key_hash import KeyHashes, hash_keys
from cdc_shared.documents import DocumentSchema, FieldPolicies, InvalidBson, document_key, from_delta_schema
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import Mode
from cdc_shared.rules.compiled import Rules
from cdc_shared.security.references import resolve_reference, secret_providers
from cdc_shared.settings import SecretsSettings, load_settings
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.reconciler.expected_rows import expect
from reconciliation.reconciler.independent_path import canonical_of_raw
from reconciliation.reconciler.row_digest import row_digests
from reconciliation.reconciler.spill import ScannedPart, SourceStatus, source_part
from reconciliation.sources.chunks import Chunk
from reconciliation.sources.mongodb_reader import ANSWER_TIMEOUT_S, MongodbReader
from reconciliation.sources.throttle import Throttle
from reconciliation.workers.task_progress import tell_progress

_NO_HASHES: Final[KeyHashes] = np.empty((0, 2), np.uint64)
_thread = threading.local()
"""`known`: the key and the `Prepared` of the run that this thread worked last."""


@dataclass(frozen=True)
class SourceScanTask:
    """What a worker needs to know; it holds no secret, workers resolve references by their own environment.

    Attributes:
        run_id: tasks of one run share a connection and a throttle in a worker.
        spec: with the rules that expected rows are made by, in `quality`.
        schema: the `schemaString` of the table version that is compared.
        sample_mask: keys with `hash_lo & mask == 0` are read through the independent decoder too; None is none.
        not_before: documents are read as they were at this operation time of the source, or later.
        documents_per_s: of this worker: the run's cap, divided by `Runner.workers`.
    """

    run_id: str
    spec: PipelineSpec
    collection: Collection
    chunk: Chunk
    mode: Mode
    schema: str
    sample_mask: int | None
    not_before: Timestamp | None = None
    documents_per_s: float | None = None

    def __repr__(self) -> str:
        # Schedulers log what they work; the borders of a chunk are values of documents.
        name = f"{self.spec.name}/{self.collection.database}/{self.collection.name}"
        return f"SourceScanTask({name}, chunk {self.chunk.number}, run {self.run_id})"


def scan_source(task: SourceScanTask) -> ScannedPart:
    """Read the chunk and return its part: a row a document.

    `facts`: `documents` and `bytes` read, `source_ms` waited for the source, `rested_ms` for its sake, `capped_ms`
    because of the cap on documents, `retries`, `sampled`.
    In mode `keys` digests are zero, and only `_id`s are read, unless rules decide by the rest of a document whether it
    has a row. Raises `Transient` when the source stays away, `Fatal`, and what `checkpoint` raises.
    """
    secrets = load_settings(SecretsSettings)
    with closing(MongodbSource(task.spec.source, secrets, answer_timeout_s=ANSWER_TIMEOUT_S)) as source:
        return scan_chunk(task, source, prepared(task, secrets))


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the tasks of a run have in common in one worker: what is dear to make, and what is learned on the way."""

    rules: Rules
    schema: DocumentSchema
    policies: FieldPolicies
    throttle: Throttle


def prepared(task: SourceScanTask, secrets: SecretsSettings) -> Prepared:
    """Return what the task's run has in this thread. Raises `Fatal` when the rules cannot be applied here."""
    key = (task.run_id, task.collection, task.spec.model_dump_json(), task.schema, task.documents_per_s)
    known: tuple[object, Prepared] | None = getattr(_thread, "known", None)
    if known is None or known[0] != key:
        providers = secret_providers(secrets)
        rules = Rules.compile(
            task.spec.quality,
            task.collection.name,
            lambda reference: resolve_reference(reference, providers).reveal().encode(),
        )
        known = (
            key,
            Prepared(
                rules,
                from_delta_schema(task.schema),
                FieldPolicies.of(task.spec.evolution, task.collection.name),
                Throttle(task.documents_per_s),
            ),
        )
        _thread.known = known
    return known[1]


def scan_chunk(task: SourceScanTask, source: MongodbSource, prepared: Prepared) -> ScannedPart:
    """As `scan_source`, from a source at hand."""
    keys_only = task.mode is Mode.KEYS and not prepared.rules.validates
    reader = MongodbReader(source, task.collection, not_before=task.not_before, keys_only=keys_only)
    throttle = prepared.throttle
    before = _waited_ms(throttle)
    hashed = _HashedDocuments(task, prepared)
    add = hashed.add_keys if keys_only else hashed.add
    for batch in reader.read(task.chunk, throttle):
        add(batch)
        tell_progress(hashed.documents, throttle.held_back)
    facts = {name: after - before[name] for name, after in _waited_ms(throttle).items()}
    return hashed.part({**facts, "retries": reader.retries})


class _HashedDocuments:
    """The rows of a part, as they grow."""

    def __init__(self, task: SourceScanTask, prepared: Prepared) -> None:
        self._task = task
        self._prepared = prepared
        self._hashes: list[KeyHashes] = [_NO_HASHES]
        self._digests: list[KeyHashes] = [_NO_HASHES]
        self._statuses: list[npt.NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        self._source_keys: list[pa.Array[Any]] = [pa.array([], pa.string())]
        self._canonical: dict[int, bytes] = {}
        self._rows = self._bytes = 0

    def add(self, documents: list[bytes]) -> None:
        """Whole documents."""
        known = self._prepared
        rows = expect(
            documents,
            known.schema,
            known.rules,
            known.policies,
            max_document_bytes=self._task.spec.quality.dirty_data.max_document_size,
        )
        hashes = hash_keys(rows.keys)
        if self._task.mode is Mode.KEYS:
            digests = np.zeros_like(hashes)
        else:
            digests = row_digests(rows.table, known.schema)
            self._sample(documents, hashes)
        self._append(documents, hashes, digests, rows.statuses, rows.source_keys)

    def add_keys(self, documents: list[bytes]) -> None:
        """Documents of nothing but their `_id`, all of which should have a row."""
        keys = [_key_or_nothing(each) for each in documents]
        statuses = np.array([SourceStatus.EXPECTED if key else SourceStatus.UNREADABLE for key in keys], np.uint8)
        rules = self._prepared.rules
        shown = [rules.key_text(key) if key else "" for key in keys] if rules.changes_keys else keys
        hashes = hash_keys(shown)
        self._append(documents, hashes, np.zeros_like(hashes), statuses, keys)

    @property
    def documents(self) -> int:
        """How many there are so far."""
        return self._rows

    def part(self, facts: dict[str, int]) -> ScannedPart:
        """All of them."""
        facts |= {"documents": self._rows, "bytes": self._bytes, "sampled": len(self._canonical)}
        return source_part(
            self._task.chunk.number,
            np.concatenate(self._hashes),
            np.concatenate(self._digests),
            np.concatenate(self._statuses),
            pa.concat_arrays(self._source_keys),
            self._canonical,
            facts,
        )

    def _sample(self, documents: list[bytes], hashes: KeyHashes) -> None:
        mask = self._task.sample_mask
        if mask is None:
            return
        for row in np.flatnonzero(hashes[:, 1] & np.uint64(mask) == 0).tolist():
            canonical = canonical_of_raw(documents[row], self._prepared.rules)
            if canonical is not None:
                self._canonical[self._rows + row] = canonical

    def _append(
        self,
        documents: list[bytes],
        hashes: KeyHashes,
        digests: KeyHashes,
        statuses: npt.NDArray[np.uint8],
        source_keys: list[str],
    ) -> None:
        self._hashes.append(hashes)
        self._digests.append(digests)
        self._statuses.append(statuses)
        self._source_keys.append(pa.array(source_keys, pa.string()))
        self._rows += len(documents)
        self._bytes += sum(map(len, documents))


def _key_or_nothing(document: bytes) -> str:
    try:
        return document_key(document)
    except InvalidBson:
        return ""


def _waited_ms(throttle: Throttle) -> dict[str, int]:
    return {
        "source_ms": round(throttle.source_s * 1000),
        "rested_ms": round(throttle.rested_s * 1000),
        "capped_ms": round(throttle.capped_s * 1000),
    }
