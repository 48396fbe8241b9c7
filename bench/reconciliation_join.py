"""What the table's side of reconciliation costs: scanning a table, hashing, spilling and joining it with its source.

The table is one of orders as the delta-writer writes them, with 1 % of its rows deleted by vectors; the source's parts
are made of the same rows, with seeded damage, and are not measured (`bench/reconciliation.py` measures those). What is
made and what is measured run in processes of their own, so that the memory is the measured work's alone.

    python -m bench.reconciliation_join --rows 20000000
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyroaring import BitMap

from bench.changes import TOPIC, ChangeBench
from bench.cost import Cost, measured, peak_rss_mb
from cdc_shared.delta.actions import Action, AddFile, Transaction
from cdc_shared.delta.key_hash import KeyHashes, hash_keys
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import app_id, watermark_id
from cdc_shared.models.reconciliation import Mode
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.deletion_vectors import DeletionVectors, with_vector
from delta_writer.writer.parquet_file import DataFileStream
from reconciliation.reconciler.data_comparator import compare
from reconciliation.reconciler.row_digest import row_digests
from reconciliation.reconciler.spill import Manifest, Side, SourceStatus, Spill, source_part
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.sink_scan import FileSlice, SinkScanTask, plan_sink_scan, scan_slices

BASE_ROWS = 100_000
FILE_ROWS = 1_000_000
DELETED_SHARE = 0.01
DAMAGED = 50
"""Of each kind: rows changed, missing, extra and duplicated."""


@dataclass
class CostOfJoin:
    """CPU and wall-clock seconds of one process, which scans with one thread.

    `pace` is that of the machine meanwhile, 1.0 a quiet one's; `found` are candidates by kind.
    """

    rows: int
    table_mb: float = 0.0
    spill_mb: float = 0.0
    scan: Cost = field(default_factory=Cost)
    join: Cost = field(default_factory=Cost)
    peak_rss_mb: float = 0.0
    pace: float = 1.0
    found: dict[str, int] = field(default_factory=dict)

    @property
    def rows_per_s(self) -> float:
        """Rows of the table for each second of CPU, from its files to the verdict."""
        return self.rows / (self.scan.cpu_s + self.join.cpu_s)

    @property
    def rows_per_s_at_full_pace(self) -> float:
        """The same, were the machine a quiet one."""
        return self.rows_per_s / self.pace


def make_join(rows: int, seed: int, directory: Path) -> None:
    """Make a table of that many rows (at least 200,000) under `directory`, and the parts of its source.

    There are `DAMAGED` candidates of each of four kinds to be found.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(_make, rows, seed, directory).result()


def quiet() -> float:
    """The pace of a machine that nobody else uses."""
    return 1.0


def measure_join(rows: int, directory: Path, times: int = 1, pace: Callable[[], float] = quiet) -> CostOfJoin:
    """Measure the comparison of what `make_join` has made, so often in one process, and return the cheapest.

    A process pays half a second once, for memory that it has not had before; of many rows that is nothing. `pace` is
    asked before and after each time: it may change from one to the next.
    """
    costs = []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        before = process.submit(pace).result()
        for _ in range(times):
            cost = process.submit(_measure, rows, directory).result()
            after = process.submit(pace).result()
            cost.pace, before = (before + after) / 2, after
            costs.append(cost)
    return max(costs, key=lambda cost: cost.rows_per_s_at_full_pace)


def _measure(rows: int, directory: Path) -> CostOfJoin:
    spill = Spill(directory / "spill")
    manifest = spill.manifest()
    assert manifest is not None
    for path in [*spill.parts(Side.SINK), *spill.candidate_files()]:
        path.unlink()
    url = str(directory / "table")
    store = open_store(url, ObjectStoreSettings())
    table = PinnedTable.at(store, TOPIC, manifest.version)
    files = [table.snapshot.files[path] for path in manifest.files]
    cost = CostOfJoin(rows, table_mb=sum(file.size for file in files) / 2**20)
    with measured() as cost.scan:
        for number, planned in enumerate(manifest.sink_plan):
            slices = [(piece, files[piece.file]) for piece in msgspec.convert(planned, list[FileSlice])]
            spill.write(scan_slices(SinkScanTask(number, url, slices, Mode.FULL, manifest.schema, None), store))
    with measured() as cost.join:
        comparison = compare(spill)
        candidates = sum(1 for _ in comparison.candidates())
    cost.found = {str(kind): count for kind, count in comparison.counts.items()}
    assert candidates == sum(cost.found.values())
    assert comparison.rows == rows + DAMAGED, comparison.rows
    cost.spill_mb = sum(path.stat().st_size for side in Side for path in spill.parts(side)) / 2**20
    cost.peak_rss_mb = peak_rss_mb()
    return cost


# --- what is made -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MadeFile:
    """A data file, and the hashes of the rows that live in it."""

    add: AddFile
    keys: list[str]
    hashes: KeyHashes
    digests: KeyHashes


def _make(rows: int, seed: int, directory: Path) -> None:
    rng = np.random.default_rng(seed)
    settings = ObjectStoreSettings()
    bench = ChangeBench(str(directory / "base"), settings, directory / "cache", seed, [DeletionVectorWriter])
    for _ in bench.fill(BASE_ROWS):
        pass
    base_url = directory / "base" / DeletionVectorWriter.mode
    base = PinnedTable.newest(open_store(str(base_url), settings), TOPIC)
    orders = pa.concat_tables(pq.read_table(base_url / path) for path in base.snapshot.files)
    store = open_store(str(directory / "table"), settings)
    starts = range(0, rows, FILE_ROWS)
    files = [_make_file(directory / "table", base, orders, range(at, min(rows, at + FILE_ROWS)), rng) for at in starts]
    doubled = pq.read_table(directory / "table" / files[0].add.path).slice(0, DAMAGED)
    files.append(_write_file(directory / "table", base, doubled, BitMap()))
    log = DeltaLog(store)
    actions = [Action(protocol=base.snapshot.protocol), Action(meta_data=base.metadata)]
    actions += [Action(txn=Transaction(app_id(TOPIC, 0), rows)), Action(txn=Transaction(watermark_id(TOPIC, 0), 1))]
    log.append(0, actions + [Action(add=file.add) for file in files])
    _spill_source(Spill(directory / "spill"), PinnedTable.newest(store, TOPIC), files[:-1], rng)


def _make_file(
    directory: Path, base: PinnedTable, orders: pa.Table, documents: range, rng: np.random.Generator
) -> _MadeFile:
    """Write a file with so many rows that live, and 1 % that do not; rows repeat `orders` under ids of their own."""
    dead = int(len(documents) * DELETED_SHARE)
    ids = [f"{document:024x}" for document in documents] + [f"dead{document:020x}" for document in documents[:dead]]
    rows = pa.concat_tables([orders] * -(-len(ids) // len(orders))).slice(0, len(ids))
    for name, values in (("_id", ids), ("_cdc_key", [f'{{"$oid": "{each}"}}' for each in ids])):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    order = np.concatenate([np.arange(DAMAGED), DAMAGED + rng.permutation(len(ids) - DAMAGED)])
    return _write_file(directory, base, rows.take(order), BitMap(np.flatnonzero(order >= len(documents))))


def _write_file(directory: Path, base: PinnedTable, rows: pa.Table, dead: BitMap) -> _MadeFile:
    path = f"part-{uuid.uuid4()}.zstd.parquet"
    stream = DataFileStream(directory / path, rows.schema)
    for start in range(0, len(rows), BASE_ROWS):
        stream.write(rows.slice(start, BASE_ROWS))
    stats = stream.finish()
    add = AddFile(path, {}, (directory / path).stat().st_size, 0, True, stats)
    if dead:
        vectors = DeletionVectors(open_store(str(directory), ObjectStoreSettings()), lambda: 0.0)
        add = with_vector(add, vectors.write({path: dead})[path])
    live = rows.filter(pa.array(~np.isin(np.arange(len(rows)), dead.to_array())))
    keys = cast(list[str], live.column("_cdc_key").to_pylist())
    return _MadeFile(add, keys, hash_keys(keys), row_digests(live, base.schema))


def _spill_source(spill: Spill, table: PinnedTable, files: list[_MadeFile], rng: np.random.Generator) -> None:
    """Begin the spill with the source's parts. The damage is in the first: its hashes are all over the range."""
    paths = sorted(table.snapshot.files)
    spill.begin(
        Manifest(
            software="bench",
            mode=Mode.FULL,
            table_id=table.table_id,
            version=table.version,
            schema=table.metadata.schema_string,
            watermark_ms=table.watermark_ms or 0,
            rules_version=0,
            sample_mask=None,
            topic_id=TOPIC.topic_id,
            ends_before=table.positions,
            files=paths,
            source_plan=list(range(len(files))),
            sink_plan=plan_sink_scan([table.snapshot.files[path] for path in paths]),
        )
    )
    for number, file in enumerate(files):
        keys, hashes, digests = file.keys, file.hashes, file.digests
        if number == 0:  # the first DAMAGED rows are those that are doubled
            digests[DAMAGED : 2 * DAMAGED] ^= np.uint64(1)
            missing = rng.integers(0, 2**63, (DAMAGED, 2), dtype=np.uint64)
            kept = np.delete(np.arange(len(keys)), range(2 * DAMAGED, 3 * DAMAGED))
            keys = [keys[row] for row in kept] + [f'"missing {each}"' for each in range(DAMAGED)]
            hashes = np.concatenate([hashes[kept], missing])
            digests = np.concatenate([digests[kept], missing])
        statuses = np.full(len(keys), SourceStatus.EXPECTED, np.uint8)
        spill.write(source_part(number, hashes, digests, statuses, keys))


def main(
    rows: Annotated[int, typer.Option(min=200_000, help="Rows of the table.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
    directory: Annotated[Path | None, typer.Option(help="Where there is room for 200 bytes a row.")] = None,
) -> None:
    """Measure the table's side of reconciliation on local files. No stack is needed."""
    with tempfile.TemporaryDirectory(prefix="cdc-bench-", dir=directory) as place:
        make_join(rows, seed, Path(place))
        cost = measure_join(rows, Path(place))
    typer.echo(json.dumps(asdict(cost) | {"rows_per_cpu_s": round(cost.rows_per_s)}, indent=2))


if __name__ == "__main__":
    typer.run(main)
