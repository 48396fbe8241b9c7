"""The key index finds every live row of a key, whatever happens to its disk and whenever its merges end (I7)."""

import errno
import threading
from shutil import rmtree

import numpy as np
import pytest
from index_table import HeldThreads, IndexTable, catch_up, found, hashes_of

from cdc_shared.delta.key_hash import hash_keys, last_of_each_key
from delta_writer.writer import index_file, index_merge, key_index
from delta_writer.writer.index_directory import discard_others
from delta_writer.writer.index_run import MemoryRun
from delta_writer.writer.key_index import IndexDamaged, KeyIndex, MergeThreads

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def small_tiers(monkeypatch):
    monkeypatch.setattr(key_index, "_SMALLEST_TIER_ENTRIES", 8)
    monkeypatch.setattr(key_index, "INLINE_MERGE_ENTRIES", 64)
    monkeypatch.setattr(key_index, "QUICK_MERGE_ENTRIES", 1024)


@pytest.fixture
def table():
    return IndexTable()


@pytest.fixture
def threads():
    return HeldThreads()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fill(index: KeyIndex, table: IndexTable, files: int, rows: int = 20) -> None:
    """Commit so many files of new keys."""
    for _ in range(files):
        number, table.made = table.made, table.made + 1
        table.put(f"f{number}", list(range(number * rows, (number + 1) * rows)))
        index.add(f"f{number}", hashes_of(table.files[f"f{number}"]))


def full_disk(monkeypatch) -> dict[str, bool]:
    real, disk = index_file._write_all, {"full": True}

    def write(descriptor, body):
        if disk["full"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, body)

    monkeypatch.setattr(index_file, "_write_all", write)
    return disk


def test_a_large_merge_goes_on_while_the_index_is_used(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 10)
    assert index.run_count == 10
    assert found(index, table, range(200)) == table.live()
    assert threads.work() == 1
    table.put("meanwhile", [3, 500])
    index.add("meanwhile", hashes_of([3, 500]))
    assert index.run_count == 4  # eight were merged to one
    assert found(index, table, range(501)) == table.live()
    assert not index.missing(table.files)


def test_a_row_that_dies_during_a_merge_is_still_found_as_a_candidate(tmp_path, table, threads):
    """Rows that were dead at the merge's start are dropped, no others."""
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 7)
    table.put("x", [0])
    index.add("x", hashes_of([0]))
    fill(index, table, 1)
    table.put("y", [1])
    threads.work()
    candidates = index.find(hashes_of([0, 1]))
    assert {path: rows.tolist() for path, rows in candidates.items()} == {"x": [0], "f0": [1]}


def test_a_full_disk_costs_nothing_but_speed(tmp_path, table, threads, monkeypatch):
    clock, disk = Clock(), full_disk(monkeypatch)
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads, clock)
    fill(index, table, 8)
    assert threads.work() == 1
    fill(index, table, 8)
    assert threads.work() == 0  # it is not tried again at once
    assert index.run_count == 16
    assert found(index, table, range(400)) == table.live()
    clock.now += key_index.RETRY_FAILED_MERGE_S
    fill(index, table, 1)
    assert threads.work() == 1
    assert found(index, table, range(400)) == table.live()
    index.close()
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["lock"]
    disk["full"] = False
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads, clock)
    catch_up(index, table)
    while threads.work():
        assert found(index, table, range(400)) == table.live()
    assert index.run_count == 2


def test_what_is_closed_is_found_again_without_reading_the_table(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 11)
    threads.work()
    index.close()
    again = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    assert again.run_count == 2
    assert not again.missing(table.files)
    assert found(again, table, range(220)) == table.live()


def test_what_was_in_memory_is_missing_after_a_crash(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 8)
    threads.work()
    index.find(hashes_of([1]))
    fill(index, table, 2)
    index._directory.release()  # the process dies
    again = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    assert again.missing(table.files) == ["f8", "f9"]


def test_a_crash_before_merged_files_are_deleted_leaves_no_entry_twice(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    for _ in range(8):
        fill(index, table, 8)
        threads.work()
    index.find(hashes_of([1]))
    assert threads.work() == 2  # the last eight in memory are let go, and the eight on disk are merged to one
    index._directory.release()
    assert len(list((tmp_path / "t").glob("*.run"))) == 9
    again = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    assert again.run_count == 1
    assert len(list((tmp_path / "t").glob("*.run"))) == 1
    assert not again.missing(table.files)


def test_closing_does_not_wait_for_merges_of_other_tables(tmp_path, table):
    threads, others = MergeThreads(), threading.Event()
    threads.quick.submit(others.wait)
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 8)
    index.close()
    assert not others.is_set()
    others.set()
    again = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    assert again.run_count == 1  # of what was in memory
    assert not again.missing(table.files)
    again.close()


def test_closing_stops_a_merge_that_runs(tmp_path, table, monkeypatch):
    writing, go_on = threading.Event(), threading.Event()
    real = index_file._write_all

    def write(descriptor, body):
        if threading.current_thread() is not threading.main_thread():
            writing.set()
            go_on.wait(60)
        real(descriptor, body)

    monkeypatch.setattr(index_file, "_write_all", write)
    monkeypatch.setattr(index_merge, "SLICE_ENTRIES", 1)
    index = KeyIndex(tmp_path, "t", table.dead_rows, MergeThreads())
    fill(index, table, 8, rows=2000)
    assert writing.wait(60)
    index._stop.set()
    go_on.set()
    index.close()
    again = KeyIndex(tmp_path, "t", table.dead_rows, HeldThreads())
    assert again.run_count == 1
    assert not again.missing(table.files)
    assert found(again, table, range(0, 16_000, 97)) == {k: v for k, v in table.live().items() if k % 97 == 0}


def test_merges_in_real_threads_lose_nothing(tmp_path, table, rng):
    index = KeyIndex(tmp_path, "t", table.dead_rows, MergeThreads())
    for number in range(300):
        table.put(f"f{number}", rng.sample(range(1000), 20))
        index.add(f"f{number}", hashes_of(table.files[f"f{number}"]))
        if number % 100 == 99:
            table.compact(rng.sample(list(table.files), len(table.files) // 2), f"compacted-{number}")
            index.add(f"compacted-{number}", hashes_of(table.files[f"compacted-{number}"]))
        if number % 40 == 39:
            assert found(index, table, range(1000)) == table.live()
            assert not index.missing(table.files)
    index.close()


def test_damage_is_told_until_it_is_repaired(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 3)
    index.close()
    (run,) = (tmp_path / "t").glob("*.run")
    body = bytearray(run.read_bytes())
    body[8 * 30] ^= 1  # an entry's high word
    run.write_bytes(body)
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    assert not index.missing(table.files)
    for _ in range(2):
        with pytest.raises(IndexDamaged):
            index.find(hashes_of([1]))
    assert index.missing(table.files) == ["f0", "f1", "f2"]
    catch_up(index, table)
    assert found(index, table, range(60)) == table.live()
    assert not run.exists()


def test_damage_that_a_merge_finds_is_repaired(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    for _ in range(8):
        fill(index, table, 8)
        threads.work()
        index.find(hashes_of([1]))
    run = next(run for run in index._runs if "f0" in run.paths)
    run.path.write_bytes(b"\0" * run.path.stat().st_size)
    threads.work()
    with pytest.raises(IndexDamaged):
        index.find(hashes_of([1]))
    assert set(index.missing(table.files)) == set(run.paths)
    catch_up(index, table)
    assert found(index, table, range(64 * 20)) == table.live()


def test_entries_of_files_that_left_the_table_are_dropped(tmp_path, table, threads):
    """Compaction moves all rows to one file: what it replaced must not stay in the index for ever."""
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    for round_ in range(5):
        fill(index, table, 8)
        threads.work()
        output = f"compacted-{round_}"
        table.compact(list(table.files), output)
        index.add(output, hashes_of(table.files[output]))
        threads.work()
        index.find(hashes_of([0]))
    threads.work()
    index.find(hashes_of([0]))
    paths = {path for run in index._runs for path in run.paths}
    entries = sum(map(len, index._runs))
    assert len(paths) < 20
    assert entries < 4 * len(table.live())
    assert found(index, table, range(2000)) == table.live()


def test_paths_and_entries_follow_the_table_and_not_its_history(tmp_path, table, threads):
    """Hot keys, 800 commits: each file soon has no live row and leaves."""
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    most_paths = most_entries = most_runs = 0
    for number in range(800):
        table.put(f"p{number}", [number % 7, 1000 + number % 90])
        index.add(f"p{number}", hashes_of(table.files[f"p{number}"]))
        threads.work()
        if number % 100 == 99:
            assert found(index, table, range(1100)) == table.live()
        most_paths = max(most_paths, sum(len(run.paths) for run in index._runs))
        most_entries = max(most_entries, sum(map(len, index._runs)))
        most_runs = max(most_runs, index.run_count)
    assert (most_paths < 300, most_entries < 600, most_runs < 40) == (True, True, True)


def test_one_key_of_a_thousand_rows_costs_one_search(tmp_path, table, threads):
    table.files = {f"f{number}": [1] for number in range(1000)}
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    catch_up(index, table)
    threads.work()
    candidates = index.find(hashes_of([1]))
    assert {path: rows.tolist() for path, rows in candidates.items()} == {path: [0] for path in table.files}


def test_memory_is_bounded_while_an_index_is_built(tmp_path, table, monkeypatch):
    monkeypatch.setattr(key_index, "MAX_MEMORY_ENTRIES", 500)
    index = KeyIndex(tmp_path, "t", table.dead_rows, MergeThreads())
    for number in range(60):
        table.files[f"f{number}"] = list(range(number * 100, (number + 1) * 100))
        index.add(f"f{number}", hashes_of(table.files[f"f{number}"]))
        assert sum(len(run) for run in index._runs if isinstance(run, MemoryRun)) <= 600
    assert found(index, table, range(6100)) == table.live()
    index.close()


def test_a_second_process_gets_a_directory_of_its_own_and_the_next_takes_it_up(tmp_path, table, threads):
    first = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    second = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(second, table, 3)
    assert first.missing(table.files) == ["f0", "f1", "f2"]
    second.close()
    third = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    assert not third.missing(table.files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t", "t.2"]


def test_a_discarded_index_is_gone(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    fill(index, table, 8)
    index.discard()
    assert not list(tmp_path.iterdir())
    threads.work()
    assert not list(tmp_path.iterdir())


def test_an_index_whose_cache_was_deleted_can_be_discarded(tmp_path, table, threads):
    index = KeyIndex(tmp_path, "t", table.dead_rows, threads)
    rmtree(tmp_path / "t")
    index.discard()


def test_indexes_from_before_a_restore_are_deleted_unless_in_use(tmp_path, table, threads):
    for name in ("t", "t-r1", "t-r2", "u"):
        KeyIndex(tmp_path, name, table.dead_rows, threads).close()
    current = [KeyIndex(tmp_path, "t-r2", table.dead_rows, threads) for _ in range(2)]
    used = KeyIndex(tmp_path, "t-r1", table.dead_rows, threads)
    discard_others(tmp_path, "t", "t-r2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t-r1", "t-r2", "t-r2.2", "u"]
    for index in [*current, used]:
        index.close()


def test_keys_are_found_by_both_words(tmp_path, table):
    index = KeyIndex(tmp_path, "t", table.dead_rows)
    index.add("a", np.array([[7, 1], [7, 2], [7, 3], [8, 1], [7, 2]], np.uint64))
    index.add("a", np.array([[7, 2]], np.uint64))  # known: a retry
    index.add("b", np.empty((0, 2), np.uint64))
    assert {p: sorted(r.tolist()) for p, r in index.find(np.array([[7, 2], [9, 9]], np.uint64)).items()} == {
        "a": [1, 4]
    }
    assert index.find(np.empty((0, 2), np.uint64)) == {}
    assert index.missing(["a", "b", "c"]) == ["c"]


def test_last_of_each_key_keeps_the_last_in_order():
    hashes = hash_keys(["a", "b", "a", "c", "b", "a"])
    assert list(last_of_each_key(hashes)) == [3, 4, 5]
    assert list(last_of_each_key(hashes[:0])) == []
    assert list(last_of_each_key(hashes[:1])) == [0]
