"""One immutable sorted run of the key index: key hash → (data file, row), searched by bisection.

On disk a run is one file: magic, length of the header, header (JSON: table id, data file paths, number of entries),
then four columns, sorted by hash: high word, low word (uint64), file number, row (uint32), little-endian. It is
memory-mapped, so a run of a billion keys costs address space, not memory.
"""

import json
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from delta_writer.writer.key_hash import KeyHashes

MAGIC: Final = b"CDCIDX1\n"
ENTRY_BYTES: Final = 24
_HEADER_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT_BYTES: Final = 64


class InvalidRun(Exception):
    """The file is not a whole run of the table: it must be rebuilt, not trusted."""


@dataclass(frozen=True)
class IndexRun:
    """Entries sorted by (`high`, `low`); `files[i]` is the position in `paths` of the entry's data file."""

    paths: tuple[str, ...]
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    files: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def of_file(cls, path: str, hashes: KeyHashes) -> "IndexRun":
        """Return the run of one data file whose row `i` has the key hash `hashes[i]`."""
        rows = np.arange(len(hashes), dtype=np.uint32)
        return cls.sorted((path,), hashes[:, 0], hashes[:, 1], np.zeros(len(hashes), np.uint32), rows)

    @classmethod
    def sorted(
        cls,
        paths: tuple[str, ...],
        high: npt.NDArray[np.uint64],
        low: npt.NDArray[np.uint64],
        files: npt.NDArray[np.uint32],
        rows: npt.NDArray[np.uint32],
    ) -> "IndexRun":
        """Return a run of the entries. Sorting is stable, so that runs laid end to end merge in linear time."""
        order = np.argsort(high, kind="stable")
        return cls(paths, high[order], low[order], files[order], rows[order])

    def find(self, hashes: KeyHashes) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Return file numbers and rows of every entry that has one of the hashes (sorted by high word)."""
        high, low = hashes[:, 0], hashes[:, 1]
        positions = np.searchsorted(self.high, high)
        found = []
        while True:  # entries that share a high word lie side by side; nearly always one round, then an empty one
            candidates = positions < len(self)
            high, low, positions = high[candidates], low[candidates], positions[candidates]
            candidates = self.high[positions] == high
            high, low, positions = high[candidates], low[candidates], positions[candidates]
            if not len(positions):
                break
            found.append(positions[self.low[positions] == low])
            positions = positions + 1
        hits = np.concatenate(found) if found else np.empty(0, np.int64)
        return self.files[hits], self.rows[hits]

    def write(self, path: Path, table_id: str) -> int:
        """Write the run durably under `path`, whole or not at all. Returns the file's size in bytes."""
        header = json.dumps({"tableId": table_id, "paths": self.paths, "entries": len(self)}).encode()
        padding = -(len(MAGIC) + _HEADER_LENGTH.size + len(header)) % _ALIGNMENT_BYTES
        header += b" " * padding
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(MAGIC + _HEADER_LENGTH.pack(len(header)) + header)
            for column in (self.high, self.low, self.files, self.rows):
                file.write(np.ascontiguousarray(column).data)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        partial.replace(path)
        return size

    @classmethod
    def open(cls, path: Path, table_id: str) -> "IndexRun":
        """Map the run under `path`.

        Raises:
            InvalidRun: it is missing, truncated, damaged in its header, or of another table.
        """
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if mapped[: len(MAGIC)] != MAGIC:
                raise InvalidRun(f"{path} is not an index run")
            (length,) = _HEADER_LENGTH.unpack_from(mapped, len(MAGIC))
            start = len(MAGIC) + _HEADER_LENGTH.size + length
            header = json.loads(mapped[len(MAGIC) + _HEADER_LENGTH.size : start])
            entries = int(header["entries"])
        except (OSError, ValueError, struct.error, KeyError, TypeError) as error:
            raise InvalidRun(f"{path} cannot be read: {error}") from error
        if header["tableId"] != table_id or len(mapped) != start + entries * ENTRY_BYTES:
            raise InvalidRun(f"{path} is truncated or belongs to another table")
        high = np.frombuffer(mapped, np.uint64, entries, start)
        low = np.frombuffer(mapped, np.uint64, entries, start + entries * 8)
        files = np.frombuffer(mapped, np.uint32, entries, start + entries * 16)
        rows = np.frombuffer(mapped, np.uint32, entries, start + entries * 20)
        return cls(tuple(header["paths"]), high, low, files, rows)
