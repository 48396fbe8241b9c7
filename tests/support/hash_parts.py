"""A collection and its table as hashes alone: what scans would leave of them, and what must be found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.models.reconciliation import DifferenceKind, Mode
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.spill import (
    KEYLESS,
    Manifest,
    ScannedPart,
    SourceStatus,
    Spill,
    sink_part,
    source_part,
)
from reconciliation.sources.deltalake_reader import KeyHash, RowLocation


def manifest(source_parts: int, sink_parts: int, files: int = 1, sample_mask: int | None = None) -> Manifest:
    """Of a run with so many tasks a side."""
    return Manifest(
        software="test",
        mode=Mode.FULL,
        table_id="table",
        version=7,
        schema="{}",
        watermark_ms=1,
        rules_version=0,
        sample_mask=sample_mask,
        topic_id="topic-id",
        ends_before={0: 0},
        files=[f"file-{number}" for number in range(files)],
        source_plan=list(range(source_parts)),
        sink_plan=list(range(sink_parts)),
    )


class Story(Enum):
    """What has become of a document and its row."""

    EQUAL = auto()
    MISSING = auto()
    EXTRA = auto()
    EXTRA_TWICE = auto()
    DOUBLED = auto()
    DOUBLED_UNLIKE = auto()
    DIFFERENT_HIGH = auto()
    DIFFERENT_LOW = auto()
    FILTERED = auto()
    FILTERED_WITH_ROW = auto()
    REJECTED = auto()
    REJECTED_WITH_ROW = auto()
    UNREADABLE = auto()
    UNREADABLE_WITH_ROW = auto()
    NO_PLACE = auto()
    SAMPLED = auto()
    SAMPLED_UNLIKE = auto()
    SAMPLED_ON_ONE_SIDE = auto()
    KEYLESS = auto()


_KINDS: Final = {
    Story.MISSING: DifferenceKind.MISSING,
    Story.EXTRA: DifferenceKind.EXTRA,
    Story.EXTRA_TWICE: DifferenceKind.EXTRA,
    Story.DOUBLED: DifferenceKind.DUPLICATED,
    Story.DOUBLED_UNLIKE: DifferenceKind.DUPLICATED,
    Story.DIFFERENT_HIGH: DifferenceKind.DIFFERENT,
    Story.DIFFERENT_LOW: DifferenceKind.DIFFERENT,
    Story.FILTERED_WITH_ROW: DifferenceKind.EXTRA,
    Story.REJECTED: DifferenceKind.REJECTED,
    Story.REJECTED_WITH_ROW: DifferenceKind.REJECTED,
    Story.UNREADABLE: DifferenceKind.MISSING,
    Story.UNREADABLE_WITH_ROW: DifferenceKind.DIFFERENT,
    Story.NO_PLACE: DifferenceKind.DIFFERENT,
    Story.SAMPLED_UNLIKE: DifferenceKind.DECODER,
}
_STATUSES: Final = {
    Story.FILTERED: SourceStatus.FILTERED,
    Story.FILTERED_WITH_ROW: SourceStatus.FILTERED,
    Story.REJECTED: SourceStatus.REJECTED,
    Story.REJECTED_WITH_ROW: SourceStatus.REJECTED,
    Story.UNREADABLE: SourceStatus.UNREADABLE,
    Story.UNREADABLE_WITH_ROW: SourceStatus.UNREADABLE,
    Story.NO_PLACE: SourceStatus.NO_PLACE,
}
_NO_DOCUMENT: Final = frozenset({Story.EXTRA, Story.EXTRA_TWICE, Story.KEYLESS})
_NO_ROW: Final = frozenset({Story.MISSING, Story.FILTERED, Story.REJECTED, Story.UNREADABLE})
_TWO_ROWS: Final = frozenset({Story.EXTRA_TWICE, Story.DOUBLED, Story.DOUBLED_UNLIKE})


class Collection:
    """Keys and their stories, dealt at random to parts and files."""

    def __init__(self, stories: Sequence[tuple[KeyHash, Story]], rng: random.Random, files: int = 3) -> None:
        """Of the hashes each comes once; that of a `KEYLESS` story does not count."""
        self.rng = rng
        self.files = files
        self.documents: list[tuple[KeyHash, KeyHash, SourceStatus, bytes | None, str]] = []
        self.rows: list[tuple[KeyHash, KeyHash, RowLocation, bytes | None]] = []
        self.expected: dict[KeyHash, Candidate] = {}
        self.kinds: Counter[DifferenceKind] = Counter()
        self.compared = self.sampled = 0
        positions = [0] * files
        for key, story in stories:
            hashed = KEYLESS if story is Story.KEYLESS else key
            places = []
            for _ in range(0 if story in _NO_ROW else 2 if story in _TWO_ROWS else 1):
                file = rng.randrange(files)
                places.append(RowLocation(f"file-{file}", positions[file]))
                positions[file] += 1
            self._add(hashed, story, places)

    def _add(self, key: KeyHash, story: Story, places: list[RowLocation]) -> None:
        digest = self.rng.getrandbits(64), self.rng.getrandbits(64)
        canonical = self.rng.randbytes(16)
        is_sampled = story in (Story.SAMPLED, Story.SAMPLED_UNLIKE, Story.SAMPLED_ON_ONE_SIDE)
        status = _STATUSES.get(story, SourceStatus.EXPECTED)
        if story not in _NO_DOCUMENT:
            self.documents.append((key, digest, status, canonical if is_sampled else None, f"key of {key}"))
        for number, place in enumerate(places):
            of_row = digest
            if story is Story.DIFFERENT_HIGH or (story is Story.DOUBLED_UNLIKE and number):
                of_row = digest[0] ^ (1 << self.rng.randrange(64)), digest[1]
            elif story is Story.DIFFERENT_LOW:
                of_row = digest[0], digest[1] ^ (1 << self.rng.randrange(64))
            of_sample = canonical[::-1] if story is Story.SAMPLED_UNLIKE else canonical
            shown = of_sample if story in (Story.SAMPLED, Story.SAMPLED_UNLIKE) else None
            self.rows.append((key, of_row, place, shown))
        self.sampled += story in (Story.SAMPLED, Story.SAMPLED_UNLIKE)
        self.compared += story not in _NO_DOCUMENT and bool(places)
        self._expect(key, story, status, places)

    def _expect(self, key: KeyHash, story: Story, status: SourceStatus, places: list[RowLocation]) -> None:
        if story is Story.FILTERED:
            self.kinds[DifferenceKind.FILTERED] += 1
        if (kind := _KINDS.get(story)) is None and story is not Story.KEYLESS:
            return
        known = self.expected.get(key)
        places = sorted([*(known.locations if known else ()), *places])
        has_document = story not in _NO_DOCUMENT
        self.kinds[kind or DifferenceKind.EXTRA] += known is None
        self.expected[key] = Candidate(
            kind=kind or DifferenceKind.EXTRA,
            hash=key,
            source_key=f"key of {key}" if has_document else None,
            status=status if has_document else None,
            locations=tuple(places),
            rows=len(places),
        )

    def spill(self, directory: Path, parts: int) -> Spill:
        """Write both sides, each row to any of so many parts."""
        spill = Spill(directory)
        spill.begin(manifest(parts, parts, self.files))
        for number in range(parts):
            spill.write(
                self._source_part(number, [each for each in self.documents if self._falls(each, number, parts)])
            )
            spill.write(self._sink_part(number, [each for each in self.rows if self._falls(each, number, parts)]))
        return spill

    def _falls(self, item: object, number: int, parts: int) -> bool:
        return hash(item) % parts == number

    def _source_part(self, number: int, documents: Sequence[Any]) -> ScannedPart:
        keys, digests, statuses, canonical, texts = zip(*documents, strict=True) if documents else ((),) * 5
        return source_part(
            number,
            _hashes(keys),
            _hashes(digests),
            np.array(statuses, np.uint8),
            list(texts),
            {row: each for row, each in enumerate(canonical) if each is not None},
        )

    def _sink_part(self, number: int, rows: Sequence[Any]) -> ScannedPart:
        keys, digests, places, canonical = zip(*rows, strict=True) if rows else ((),) * 4
        return sink_part(
            number,
            _hashes(keys),
            _hashes(digests),
            np.array([int(place.path.removeprefix("file-")) for place in places], np.uint32),
            np.array([place.position for place in places], np.uint32),
            pa.nulls(len(rows), pa.int32()),
            np.zeros(len(rows), np.bool_),
            {row: each for row, each in enumerate(canonical) if each is not None},
            {"keyless": sum(key == KEYLESS for key in keys)},
        )


def _hashes(each: Sequence[KeyHash]) -> KeyHashes:
    return np.array(each, np.uint64).reshape(-1, 2)
