"""A run of the key index on disk: memory-mapped, searched by bisection, no block believed before it is checked.

The file is a sequence of blocks of 1024 entries (four little-endian columns; the last block is padded), then the first
high word of each block, a checksum (xxh3-64) of each block, a footer (JSON: `_Footer`), and a trailer: number of
blocks, length of the footer, checksum of all that lies between the blocks and the trailer, magic.

A bit that flipped in an entry would hide a live row and so double a key, and checking whole files when they are opened
would make a start take as long as the table is large. So opening checks the footer (16 bytes for 1024 entries), a
search checks the blocks that it touches for the first time, and `check_all` spares it that in the background.
"""

import mmap
import os
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from cdc_shared.delta.key_hash import KeyHashes
from delta_writer.writer.index_run import NO_ENTRIES, Entries, Numbers, Positions, Words, spans

MAGIC: Final = b"CDCIDX2\n"
SUFFIX: Final = ".run"
PARTIAL_SUFFIX: Final = ".partial"
BLOCK_ENTRIES: Final = 1024  # a power of two: a bisection within a block takes log2 of it steps
_SYNC_BYTES: Final = 64 * 1024 * 1024
"""Written to disk at once: a full disk shows early, and no flood of dirty pages holds up other writers of the disk."""

_CHECKED_AT_ONCE: Final = 256  # blocks, 6 MiB

_BLOCK: Final = np.dtype(
    [
        (name, kind, (BLOCK_ENTRIES,))
        for name, kind in (("high", "<u8"), ("low", "<u8"), ("files", "<u4"), ("rows", "<u4"))
    ]
)
_BLOCK_BYTES: Final = _BLOCK.itemsize
_BLOCK_WORDS: Final = _BLOCK_BYTES // 8
_BLOCK_NUMBERS: Final = _BLOCK_BYTES // 4
_TRAILER: Final = struct.Struct("<QQQ8s")
_PAD: Final = np.iinfo(np.uint64).max


class InvalidRun(Exception):
    """The file is not a whole run of the table: what it held must be read from the table again."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class _Footer(msgspec.Struct, frozen=True, rename="camel"):
    table_id: str
    entries: int
    paths: list[str]
    entries_of: list[int]
    replaces: list[str]


class DiskRun:
    """A run whose file is under `path`. `replaces` names the files beside it that it was merged from."""

    def __init__(self, path: Path, table_id: str, *, just_written: bool = False) -> None:
        """Open the run of the table. One that this process has just written is in the page cache and needs no check.

        Raises:
            InvalidRun: the file is missing, truncated, of another table, or damaged outside its blocks.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            blocks, length, checksum, magic = _TRAILER.unpack_from(mapped, len(mapped) - _TRAILER.size)
            start, end = blocks * _BLOCK_BYTES, len(mapped) - _TRAILER.size
            if magic != MAGIC or start + blocks * 16 + length != end:
                raise InvalidRun(path, "it is truncated, or no run of this version")
            if xxh3_64_intdigest(memoryview(mapped)[start:end]) != checksum:
                raise InvalidRun(path, "its footer is damaged")
            footer = msgspec.json.decode(mapped[end - length : end], type=_Footer)
        except (OSError, ValueError, struct.error, msgspec.MsgspecError) as error:
            raise InvalidRun(path, error) from error
        if footer.table_id != table_id:
            raise InvalidRun(path, f"it belongs to table {footer.table_id}")
        self.paths: Sequence[str] = tuple(footer.paths)
        self.entries_of: Positions = np.array(footer.entries_of, np.int64)
        self.replaces = footer.replaces
        self._length = footer.entries
        self._fences = np.frombuffer(mapped, "<u8", blocks, start).astype(np.uint64)
        self._checksums = np.frombuffer(mapped, "<u8", blocks, start + blocks * 8).astype(np.uint64)
        self._words: Words = np.frombuffer(mapped, "<u8", blocks * _BLOCK_WORDS)
        self._numbers: Numbers = np.frombuffer(mapped, "<u4", blocks * _BLOCK_NUMBERS)
        self._checked: npt.NDArray[np.bool_] = np.full(blocks, just_written)

    def __len__(self) -> int:
        return self._length

    def find(self, hashes: KeyHashes) -> tuple[Numbers, Numbers]:
        wanted = hashes[:, 0]
        right = np.searchsorted(self._fences, wanted, side="right") - 1
        inside = right >= 0
        wanted, low, right = wanted[inside], hashes[inside, 1], right[inside]
        left = np.maximum(np.searchsorted(self._fences, wanted) - 1, 0)  # nearly always the same block as `right`
        self._check(spans(left, right + 1))
        end = np.minimum((right + 1) * BLOCK_ENTRIES, self._length)
        first = self._bisect(left, wanted)
        hit = np.flatnonzero(first < end)
        hit = hit[self._high(first[hit]) == wanted[hit]]
        first, last = first[hit], np.minimum(self._bisect(right[hit], wanted[hit], past_equal=True), end[hit])
        hits = spans(first, last)
        blocks, offsets = np.divmod(hits, BLOCK_ENTRIES)
        same = self._words[blocks * _BLOCK_WORDS + BLOCK_ENTRIES + offsets] == np.repeat(low[hit], last - first)
        numbers = (blocks * _BLOCK_NUMBERS + 4 * BLOCK_ENTRIES + offsets)[same]
        return self._numbers[numbers], self._numbers[numbers + BLOCK_ENTRIES]

    def read(self, start: int, stop: int) -> Entries:
        """`start` must be a multiple of `BLOCK_ENTRIES`. Reads the file, not the map: the map would count as memory."""
        stop = min(stop, self._length)
        if start >= stop:
            return NO_ENTRIES
        with self._opened() as file:
            body = self._read_blocks(file, start // BLOCK_ENTRIES, -(-stop // BLOCK_ENTRIES))
        blocks = np.frombuffer(body, _BLOCK)
        high, low, files, rows = (blocks[name].reshape(-1)[: stop - start] for name in Entries._fields)
        return Entries(high, low, files, rows)

    def check_all(self, stop: threading.Event) -> None:
        """Check every block, until `stop` is set. Damage is left for the search to find. May run in any thread."""
        with suppress(InvalidRun), self._opened() as file:
            for first in range(0, len(self._checked), _CHECKED_AT_ONCE):
                if stop.is_set():
                    return
                last = min(first + _CHECKED_AT_ONCE, len(self._checked))
                self._read_blocks(file, first, last)
                self._checked[first:last] = True

    def delete(self) -> None:
        """Delete the file. A search may go on: the disk's space is given back when the run is let go."""
        self.path.unlink(missing_ok=True)

    def _bisect(self, blocks: Positions, wanted: Words, *, past_equal: bool = False) -> Positions:
        """Return, for each block, the position of its first entry not below (or that is above) the wanted high word."""
        base = blocks * _BLOCK_WORDS
        offset = np.zeros(len(blocks), np.int64)
        below = np.less_equal if past_equal else np.less
        step = BLOCK_ENTRIES // 2
        while step:
            offset += step * below(self._words[base + offset + (step - 1)], wanted)
            step //= 2
        offset += below(self._words[base + offset], wanted)
        return blocks * BLOCK_ENTRIES + offset

    def _high(self, positions: Positions) -> Words:
        blocks, offsets = np.divmod(positions, BLOCK_ENTRIES)
        high: Words = self._words[blocks * _BLOCK_WORDS + offsets]
        return high

    def _check(self, blocks: Positions) -> None:
        """Check those of the blocks that were not checked since the run was opened."""
        unchecked = np.unique(blocks[~self._checked[blocks]]).tolist()
        if unchecked:
            with self._opened() as file:
                for block in unchecked:
                    self._read_blocks(file, block, block + 1)
                    self._checked[block] = True

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file to read: of a sector that cannot be read, the map would kill the process."""
        try:
            file = os.open(self.path, os.O_RDONLY)
            try:
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise InvalidRun(self.path, error) from error

    def _read_blocks(self, file: int, first: int, last: int) -> bytes:
        """Read blocks and check them."""
        body = os.pread(file, (last - first) * _BLOCK_BYTES, first * _BLOCK_BYTES)
        for block in range(first, last):
            at = (block - first) * _BLOCK_BYTES
            if xxh3_64_intdigest(memoryview(body)[at : at + _BLOCK_BYTES]) != self._checksums[block]:
                raise InvalidRun(self.path, f"block {block} is damaged")
        return body


class RunFileWriter:
    """Writes a run to a file that is there whole, or not at all. One slice is in memory at a time."""

    def __init__(self, path: Path, table_id: str) -> None:
        """Raises `OSError`, as every method does, when the disk does not take it."""
        self._path = path
        self._table_id = table_id
        self._partial = path.with_suffix(PARTIAL_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have deleted the cache while we run
        self._file = self._partial.open("xb", buffering=0)
        self._rest = NO_ENTRIES
        self._fences: list[Words] = []
        self._checksums: list[int] = []
        self._unsynced_bytes = 0
        self._entries = 0

    def append(self, entries: Entries) -> None:
        """Write entries, whose high words are not below those written before."""
        self._entries += len(entries.high)
        entries = Entries.joined([self._rest, entries])
        whole = len(entries.high) // BLOCK_ENTRIES * BLOCK_ENTRIES
        self._write_blocks(entries.at(slice(0, whole)))
        self._rest = entries.at(np.arange(whole, len(entries.high)))  # a copy: a view would keep the whole slice

    def finish(self, paths: Sequence[str], entries_of: Positions, replaces: Collection[str]) -> None:
        """Make the run durable under its path."""
        if missing := len(self._rest.high) and BLOCK_ENTRIES - len(self._rest.high):
            zeros = np.zeros(missing, np.uint32)
            padding = Entries(np.full(missing, _PAD, np.uint64), np.zeros(missing, np.uint64), zeros, zeros)
            self._rest = Entries.joined([self._rest, padding])
        self._write_blocks(self._rest)
        fences = np.concatenate([*self._fences, np.empty(0, np.uint64)]).astype("<u8").tobytes()
        checksums = np.array(self._checksums, "<u8").tobytes()
        footer = msgspec.json.encode(
            _Footer(self._table_id, self._entries, list(paths), entries_of.tolist(), sorted(replaces))
        )
        tail = fences + checksums + footer
        trailer = _TRAILER.pack(len(self._checksums), len(footer), xxh3_64_intdigest(tail), MAGIC)
        _write_all(self._file.fileno(), tail + trailer)
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._partial.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _write_blocks(self, entries: Entries) -> None:
        blocks = np.empty(len(entries.high) // BLOCK_ENTRIES, _BLOCK)
        for name in Entries._fields:
            blocks[name] = getattr(entries, name).reshape(-1, BLOCK_ENTRIES)
        body = blocks.view(np.uint8).data
        self._fences.append(blocks["high"][:, 0].copy())
        self._checksums += [xxh3_64_intdigest(body[at : at + _BLOCK_BYTES]) for at in range(0, len(body), _BLOCK_BYTES)]
        _write_all(self._file.fileno(), body)
        self._unsynced_bytes += len(body)
        if self._unsynced_bytes >= _SYNC_BYTES:
            os.fsync(self._file.fileno())
            self._unsynced_bytes = 0


def _write_all(descriptor: int, body: bytes | memoryview) -> None:
    rest = memoryview(body)
    while rest:  # a system call writes at most 2 GiB
        rest = rest[os.write(descriptor, rest) :]
