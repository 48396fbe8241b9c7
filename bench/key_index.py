"""What the key index costs: `python -m bench.key_index --keys 10_000_000` (no stack needed).

It fills an index file by file, as an initial load does, then looks up and adds batches as a writer does at each commit,
while merges go on in the background. Prints the time that the writer's thread spends, and the memory it takes.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
import typer
from pyroaring import BitMap

from cdc_shared.delta.key_hash import KeyHashes
from delta_writer.writer.key_index import KeyIndex

FILE_ROWS = 50_000
BATCH_ROWS = 10_000
BATCH_HITS = 4_000


class Index(Protocol):
    """What is measured of an index."""

    run_count: int

    def add(self, path: str, hashes: KeyHashes) -> None: ...
    def find(self, hashes: KeyHashes) -> dict[str, npt.NDArray[np.uint32]]: ...
    def close(self) -> None: ...


@dataclass
class Table:
    """The dead rows of a table's files; a file without an entry is in the table and whole."""

    dead: dict[str, BitMap] = field(default_factory=dict)

    def dead_rows(self, path: str) -> BitMap | None:
        return self.dead.get(path) or BitMap()


class PeakMemory:
    """The most anonymous memory of this process while the context is open, in MB above what it was; Linux only."""

    def __enter__(self) -> PeakMemory:
        self.mb, self._start, self._done = 0.0, _anonymous_mb(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.01):
            self.mb = max(self.mb, _anonymous_mb() - self._start)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def hashes_of(numbers: npt.NDArray[np.uint64]) -> KeyHashes:
    """Return a hash for each number (splitmix64, twice): cheaper than hashing texts, as uniform."""
    with np.errstate(over="ignore"):
        words = []
        for seed in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03):
            x = numbers * np.uint64(seed) + np.uint64(seed >> 1)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            words.append(x ^ (x >> np.uint64(31)))
    return np.stack(words, axis=1)


def fill(index: Index, keys: int) -> dict[str, float]:
    """Add `keys` new keys in files of 50,000, and look up every fourth file's."""
    adds, adds_cpu = [], []
    started, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        for start in range(0, keys, FILE_ROWS):
            hashes = hashes_of(np.arange(start, min(keys, start + FILE_ROWS), dtype=np.uint64))
            if start // FILE_ROWS % 4 == 0:
                index.find(hashes)
            before, before_cpu = time.perf_counter(), time.thread_time()
            index.add(f"part-{start}.zstd.parquet", hashes)
            adds.append(time.perf_counter() - before)
            adds_cpu.append(time.thread_time() - before_cpu)
    return {
        "fill s": time.perf_counter() - started,
        "fill CPU s": time.process_time() - cpu,
        "fill: longest add ms": max(adds) * 1e3,
        "fill: longest add CPU ms": max(adds_cpu) * 1e3,
        "fill: peak memory MB": memory.mb,
    }


def change(index: Index, table: Table, keys: int, batches: int, seed: int) -> dict[str, float]:
    """Commit batches of 6,000 new keys and 4,000 known ones; what the writer's thread waits for the index."""
    rng = np.random.default_rng(seed)
    finds, adds, cpu = [], [], []
    with PeakMemory() as memory:
        for number in range(batches):
            known = rng.integers(0, keys, BATCH_HITS).astype(np.uint64)
            new = np.arange(keys, keys + BATCH_ROWS - BATCH_HITS, dtype=np.uint64)
            keys += len(new)
            hashes = hashes_of(np.concatenate([known, new]))
            started, started_cpu = time.perf_counter(), time.thread_time()
            found = index.find(hashes)
            finds.append(time.perf_counter() - started)
            cpu.append(time.thread_time() - started_cpu)
            for path, rows in found.items():
                table.dead[path] = table.dead.get(path, BitMap()) | BitMap(rows)
            started, started_cpu = time.perf_counter(), time.thread_time()
            index.add(f"change-{number}.zstd.parquet", hashes)
            adds.append(time.perf_counter() - started)
            cpu[-1] += time.thread_time() - started_cpu
    return {
        "change: median look-up ms": float(np.median(finds)) * 1e3,
        "change: longest look-up ms": max(finds) * 1e3,
        "change: median add ms": float(np.median(adds)) * 1e3,
        "change: longest add ms": max(adds) * 1e3,
        "change: peak memory MB": memory.mb,
        "change: median CPU ms, add and look-up": float(np.median(cpu)) * 1e3,
        "change: longest CPU ms, add and look-up": max(cpu) * 1e3,
        "runs": index.run_count,
    }


def look_up(index: Index, keys: int, seed: int) -> dict[str, float]:
    """Look up 10,000 keys on an idle index: first after it was opened, then again and again."""
    rng = np.random.default_rng(seed)
    wall, cpu = [], []
    for _ in range(20):
        known = rng.integers(0, keys, BATCH_HITS).astype(np.uint64)
        unknown = rng.integers(2**62, 2**63, BATCH_ROWS - BATCH_HITS).astype(np.uint64)
        hashes = hashes_of(np.concatenate([known, unknown]))
        started, started_cpu = time.perf_counter(), time.thread_time()
        index.find(hashes)
        wall.append(time.perf_counter() - started)
        cpu.append(time.thread_time() - started_cpu)
    return {"first look-up ms": wall[0] * 1e3, "look-up CPU ms": float(np.median(cpu)) * 1e3}


def measure(open_index: Any, keys: int, batches: int, seed: int) -> dict[str, float]:
    """Return all figures; `open_index(table)` opens the index, again after it was closed."""
    table = Table()
    index: Index = open_index(table)
    figures = fill(index, keys)
    figures |= change(index, table, keys, batches, seed)
    started = time.perf_counter()
    index.close()
    figures["close s"] = time.perf_counter() - started
    started = time.perf_counter()
    index = open_index(table)
    figures["open ms"] = (time.perf_counter() - started) * 1e3
    figures |= look_up(index, keys, seed + 1)
    index.close()
    return figures


def _anonymous_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def main(
    keys: Annotated[int, typer.Option(min=100_000, help="Keys of the table.")] = 10_000_000,
    batches: Annotated[int, typer.Option(min=1, help="Batches of 10,000 changes.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same changes.")] = 0,
) -> None:
    """Measure the key index on a table of so many keys."""
    with tempfile.TemporaryDirectory() as directory:

        def open_index(table: Table) -> KeyIndex:
            return KeyIndex(Path(directory), "bench", table.dead_rows)

        for what, figure in measure(open_index, keys, batches, seed).items():
            print(f"{what:40} {figure:12.1f}")


if __name__ == "__main__":
    typer.run(main)
