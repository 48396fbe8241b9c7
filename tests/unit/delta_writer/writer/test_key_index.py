"""The key index finds every row of a key, and is rebuilt rather than trusted."""

from pathlib import Path

import numpy as np
import pytest

from delta_writer.writer import key_index
from delta_writer.writer.index_run import IndexRun, InvalidRun
from delta_writer.writer.key_hash import hash_keys, last_of_each_key
from delta_writer.writer.key_index import KeyIndex

pytestmark = pytest.mark.unit


class Rows:
    """Which rows live: all of known files, but for those marked dead."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.dead: set[tuple[str, int]] = set()

    def live(self, path, rows):
        return np.array([path in self.files and (path, int(row)) not in self.dead for row in rows], bool)


def live_hits(index: KeyIndex, rows: Rows, key: str) -> set[tuple[str, int]]:
    found = index.find(hash_keys([key]))
    return {(path, int(r)) for path, hits in found.items() for r in hits[rows.live(path, hits)]}


@pytest.fixture
def small_tiers(monkeypatch):
    monkeypatch.setattr(key_index, "_SMALLEST_TIER_ENTRIES", 8)
    monkeypatch.setattr(key_index, "PERSIST_ENTRIES", 128)


@pytest.mark.usefixtures("small_tiers")
def test_random_history_equals_a_dict(tmp_path, rng):
    rows, model = Rows(), {}
    index = KeyIndex(tmp_path, "table", rows.live)
    for number in range(300):
        path = f"part-{number}"
        keys = rng.sample([f"k{i}" for i in range(200)], rng.randint(1, 30))
        for key in keys:
            if key in model:
                rows.dead.add(model[key])
        rows.files.add(path)
        index.add(path, hash_keys(keys))
        model |= {key: (path, row) for row, key in enumerate(keys)}
        if rng.random() < 0.05:
            index.close()
            index = KeyIndex(tmp_path, "table", rows.live)
            assert not index.missing(sorted({path for path, _ in model.values()}))
        if number % 50 == 49:
            for key in [f"k{i}" for i in range(210)]:
                assert live_hits(index, rows, key) == ({model[key]} if key in model else set())
    assert index.run_count < 40


@pytest.mark.usefixtures("small_tiers")
def test_files_that_left_the_table_are_forgotten(tmp_path):
    rows = Rows()
    index = KeyIndex(tmp_path, "table", rows.live)
    for number in range(16):
        rows.files.add(f"part-{number}")
        index.add(f"part-{number}", hash_keys([f"k{number}"]))
        rows.files.discard("part-3")
    assert index.missing(["part-3", "part-4"]) == ["part-3"]


def test_what_was_not_persisted_is_missing_after_a_crash(tmp_path):
    rows = Rows()
    rows.files |= {"a", "b"}
    index = KeyIndex(tmp_path, "table", rows.live)
    index.add("a", hash_keys(["x"]))
    index.persist()
    index.add("b", hash_keys(["y"]))
    index._lock.close()  # the process dies
    again = KeyIndex(tmp_path, "table", rows.live)
    assert again.missing(["a", "b"]) == ["b"]
    assert live_hits(again, rows, "x") == {("a", 0)}


@pytest.mark.parametrize("harm", ["truncate", "garbage", "delete", "other table", "manifest"])
def test_a_damaged_cache_is_not_trusted(tmp_path, harm):
    rows = Rows()
    rows.files.add("a")
    index = KeyIndex(tmp_path, "table", rows.live)
    index.add("a", hash_keys([f"k{i}" for i in range(1000)]))
    index.close()
    (run,) = (tmp_path / "table").glob("*.run")
    if harm == "truncate":
        run.write_bytes(run.read_bytes()[:-24])
    elif harm == "garbage":
        run.write_bytes(b"not an index run at all")
    elif harm == "delete":
        run.unlink()
    elif harm == "other table":
        run.write_bytes(run.read_bytes().replace(b'"table"', b'"tabl2"'))
    else:
        (tmp_path / "table" / "manifest.json").write_text("{")
    assert KeyIndex(tmp_path, "table", rows.live).missing(["a"]) == ["a"]


def test_a_second_process_gets_a_directory_of_its_own(tmp_path):
    rows = Rows()
    rows.files.add("a")
    first = KeyIndex(tmp_path, "table", rows.live)
    second = KeyIndex(tmp_path, "table", rows.live)
    second.add("a", hash_keys(["x"]))
    second.close()
    assert first.missing(["a"]) == ["a"]
    first.close()


def test_a_run_finds_keys_that_share_a_high_word(tmp_path: Path):
    hashes = np.array([[7, 1], [7, 2], [7, 3], [8, 1], [7, 2]], np.uint64)
    run = IndexRun.of_file("p", hashes)
    _, rows = run.find(np.array([[7, 2]], np.uint64))
    assert sorted(rows) == [1, 4]
    run.write(tmp_path / "r.run", "t")
    _, rows = IndexRun.open(tmp_path / "r.run", "t").find(np.array([[7, 3], [8, 1], [9, 9]], np.uint64))
    assert sorted(rows) == [2, 3]
    with pytest.raises(InvalidRun):
        IndexRun.open(tmp_path / "r.run", "another")


def test_last_of_each_key_keeps_the_last_in_order():
    hashes = hash_keys(["a", "b", "a", "c", "b", "a"])
    assert list(last_of_each_key(hashes)) == [3, 4, 5]
    assert list(last_of_each_key(hashes[:0])) == []
    assert list(last_of_each_key(hashes[:1])) == [0]
