"""One task of a source scan: the documents of a chunk → hashes of the rows that they should have."""

from dataclasses import dataclass

from bson import Timestamp

from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import Mode
from reconciliation.reconciler.spill import ScannedPart
from reconciliation.sources.chunks import Chunk


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


def scan_source(task: SourceScanTask) -> ScannedPart:
    """Read the chunk and return its part: a row a document.

    `facts`: `documents` and `bytes` read, `source_ms` waited for the source, `throttled_ms` rested for its sake,
    `capped_ms` waited because of the cap on documents, `retries`, `sampled`.
    In mode `keys` only `_id`s are read, digests are zero. Raises `Transient` when the source stays away, `Fatal`, and
    what `checkpoint` raises.
    """
    raise NotImplementedError
