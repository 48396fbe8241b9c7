"""Found is what was seeded: for random collections, tables and damage, however they are cut."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hash_parts import Collection, Story, manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_shared.errors import Fatal
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler import hash_join, pairing
from reconciliation.reconciler.data_comparator import Comparison, compare
from reconciliation.reconciler.hash_join import CompareLimits
from reconciliation.reconciler.spill import KEYLESS, Side, Spill
from reconciliation.sources.deltalake_reader import KeyHash

pytestmark = pytest.mark.unit

LAST = 2**64 - 1
# Equal high words, and those that ranges begin and end with.
HIGH = st.one_of(st.sampled_from([0, 1, 2**63 - 1, 2**63, LAST]), st.integers(0, LAST))
HASHES = st.tuples(HIGH, st.one_of(st.sampled_from([1, 2, LAST]), st.integers(1, LAST)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(HASHES, st.sampled_from(Story)), max_size=60, unique_by=lambda each: each[0]),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_found_is_seeded(stories: list[tuple[KeyHash, Story]], parts: int, seed: int) -> None:
    collection = Collection(stories, random.Random(seed))
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as directory:
        rows = len(collection.documents) + len(collection.rows)
        patch.setattr("reconciliation.reconciler.spill._sync", lambda path: None)  # most of the time of so little
        patch.setattr(hash_join, "RANGE_ROWS", max(1, rows // (1 + seed % 4)))
        patch.setattr(pairing, "PIECE_ROWS", 1 + seed % 7)
        check(collection, compare(collection.spill(Path(directory) / "spill", parts)))


@pytest.mark.parametrize("range_rows", [700, 1_000_000])
def test_found_is_seeded_among_many_that_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_rows: int
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr(hash_join, "RANGE_ROWS", range_rows)
    stories = [Story.EQUAL] * 5_000 + [story for story in Story for _ in range(5)]
    hashes = [(rng.getrandbits(64), rng.getrandbits(64)) for _ in stories]
    collection = Collection(list(zip(hashes, stories, strict=True)), rng)
    comparison = compare(collection.spill(tmp_path / "spill", 4))
    check(collection, comparison)
    differing = Counter(high >> 56 for high, _ in collection.expected)
    assert {each.range: each.differing for each in comparison.digest_map if each.differing} == differing
    for each in comparison.digest_map:
        unlike = (each.source_rows, each.source_digest) != (each.sink_rows, each.sink_digest)
        assert unlike <= bool(each.differing) or any(high >> 56 == each.range for high, _ in unshown(collection))
    assert sum(each.source_rows for each in comparison.digest_map) == len(collection.documents)
    assert sum(each.sink_rows for each in comparison.digest_map) == len(collection.rows)


def unshown(collection: Collection) -> list[KeyHash]:
    """Documents that have no row and should have none."""
    rows = {row[0] for row in collection.rows}
    return [document[0] for document in collection.documents if document[0] not in rows]


def check(collection: Collection, comparison: Comparison) -> None:
    found = list(comparison.candidates())
    assert {each.hash: each for each in found} == collection.expected
    assert len(found) == len(collection.expected)
    assert [each.hash for each in found] == sorted(each.hash for each in found)
    assert comparison.counts == collection.kinds
    assert comparison.documents == len(collection.documents)
    assert comparison.rows == len(collection.rows)
    assert comparison.compared == collection.compared
    assert comparison.sampled == collection.sampled
    assert comparison.keyless_rows == sum(row[0] == KEYLESS for row in collection.rows)
    for kind in DifferenceKind:
        assert [each for each in found if each.kind is kind] == list(comparison.candidates(kind))
    assert all(each.keyless == (each.hash == KEYLESS) for each in found)


def many(count: int, *stories: Story) -> Collection:
    rng = random.Random(3)
    return Collection(
        [((rng.getrandbits(64), rng.getrandbits(64)), story) for story in stories for _ in range(count)], rng
    )


def test_where_nothing_is_equal_every_key_is_a_candidate_in_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that has another type by now, for one, makes candidates of all rows."""
    collection = many(12_000, Story.DIFFERENT_HIGH, Story.MISSING, Story.EXTRA, Story.DOUBLED)
    spill = collection.spill(tmp_path / "spill", 2)
    little = CompareLimits(memory_bytes=32 * 2**20)
    with monkeypatch.context() as in_one_piece:
        in_one_piece.setattr(hash_join, "SPLIT", 2**65)
        with pytest.raises(Fatal, match="needs more room"):
            compare(spill, little)
    check(collection, compare(spill, little))


def test_of_a_key_with_very_many_rows_some_are_named(tmp_path: Path) -> None:
    collection = many(hash_join.MAX_LOCATIONS + 50, Story.KEYLESS)
    (candidate,) = compare(collection.spill(tmp_path / "spill", 2)).candidates()
    assert candidate.keyless
    assert candidate.rows == hash_join.MAX_LOCATIONS + 50
    assert candidate.locations == collection.expected[KEYLESS].locations[: hash_join.MAX_LOCATIONS]


class Killed(Exception):
    pass


def test_a_comparison_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_join, "RANGE_ROWS", 100)
    collection = many(20, *Story)
    spill = collection.spill(tmp_path / "spill", 3)
    joined: list[int] = []
    monkeypatch.setattr(Spill, "candidate_writer", counted(joined))
    seen: list[tuple[int, int]] = []

    def killed_half_way(done: int, total: int) -> None:
        seen.append((done, total))
        if 2 * done >= total:
            raise Killed

    with pytest.raises(Killed):
        compare(spill, progress=killed_half_way)
    first = list(joined)
    assert 0 < len(first) == seen[-1][0] < seen[-1][1]
    check(collection, compare(spill))
    assert sorted(joined) == list(range(seen[-1][1]))
    check(collection, compare(spill))
    assert len(joined) == seen[-1][1]


def counted(joined: list[int]):  # type: ignore[no-untyped-def]
    lend = Spill.candidate_writer

    def lend_and_count(spill: Spill, number: int):  # type: ignore[no-untyped-def]
        joined.append(number)
        return lend(spill, number)

    return lend_and_count


def test_parts_that_are_missing_are_no_verdict(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill")
    with pytest.raises(ValueError, match="scan them first"):
        compare(spill)
    spill.begin(manifest(2, 0))
    with pytest.raises(ValueError, match="2 parts of the source are missing"):
        compare(spill)


def test_nothing_at_all_is_equal(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill")
    spill.begin(manifest(0, 0))
    comparison = compare(spill)
    assert (comparison.documents, comparison.rows, comparison.counts) == (0, 0, {})
    assert list(comparison.candidates()) == []


def test_an_empty_side(tmp_path: Path) -> None:
    collection = many(10, Story.MISSING)
    check(collection, compare(collection.spill(tmp_path / "missing", 1)))
    collection = many(10, Story.EXTRA)
    check(collection, compare(collection.spill(tmp_path / "extra", 1)))


def test_documents_that_a_scan_gave_twice_are_candidates(tmp_path: Path) -> None:
    """None should; a candidate is what the settling can decide."""
    collection = many(3, Story.EQUAL)
    collection.documents.append((*collection.documents[0][:4], collection.documents[0][4]))
    spill = collection.spill(tmp_path / "spill", 1)
    assert len(spill.finished(Side.SOURCE)) == 1
    (candidate,) = compare(spill).candidates()
    assert candidate.hash == collection.documents[0][0]
    assert candidate.kind is DifferenceKind.DIFFERENT
