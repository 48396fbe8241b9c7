"""Which files are rewritten, and what that costs a row over the life of a table."""

import math

import pytest

from cdc_shared.delta.actions import AddFile, DeletionVectorDescriptor
from delta_writer.maintenance.rewrite_plan import FANOUT, MAX_INPUTS, FileShape, choose_files, gather_files

pytestmark = pytest.mark.unit

TARGET = 1_000_000
ROW_BYTES = 100


def shape(name, rows, dead=0, row_bytes=ROW_BYTES):
    vector = DeletionVectorDescriptor("u", "x", 1, dead, 1) if dead else None
    stats = f'{{"numRecords":{rows}}}'
    return FileShape.of(AddFile(name, {}, rows * row_bytes, 0, True, stats, deletion_vector=vector))


def chosen(*shapes):
    return sorted(file.path for file in choose_files(shapes, TARGET))


def test_files_of_one_tier_wait_until_they_are_enough():
    few = [shape(f"f{i}", 10) for i in range(FANOUT - 1)]
    assert chosen(*few) == []
    assert chosen(*few, shape("other tier", 100)) == []
    assert len(chosen(*few, shape("one more", 63))) == FANOUT


def test_full_files_are_left_alone():
    assert chosen(*(shape(f"f{i}", TARGET // 2 // ROW_BYTES) for i in range(100))) == []


def test_a_tier_that_fills_a_file_needs_no_eight():
    nearly = TARGET // 2 // ROW_BYTES - 1
    assert chosen(shape("a", nearly), shape("b", nearly)) == []
    assert len(chosen(*(shape(f"f{i}", nearly) for i in range(5)))) == 3


def test_one_job_is_bounded_in_bytes_and_files():
    assert len(chosen(*(shape(f"f{i}", 1) for i in range(1000)))) == MAX_INPUTS
    wide = [shape(f"f{i}", 10, row_bytes=30_000) for i in range(100)]  # 300 kB each
    assert sum(file.size for file in choose_files(wide, TARGET)) <= 1.5 * TARGET


def test_a_large_file_is_rewritten_once_a_third_is_dead():
    rows = TARGET // ROW_BYTES
    assert chosen(shape("a", rows, rows // 3 - 1)) == []
    assert chosen(shape("a", rows, rows // 3 + 1)) == ["a"]
    assert chosen(shape("a", rows, rows // 3 + 1), shape("b", rows, rows // 2)) == ["a", "b"], "together a full one"


def test_small_files_with_dead_rows_wait_for_company():
    few = [shape(f"f{i}", 100, 50) for i in range(FANOUT - 1)]
    assert chosen(*few) == []
    assert len(chosen(*few, shape("another", 9, 3))) == FANOUT


def test_a_row_is_rewritten_logarithmically_often_and_files_stay_few():
    """20,000 appends of 10 rows: what LSM tiers promise, counted."""
    live: dict[str, FileShape] = {}
    rewritten = 0
    for number in range(20_000):
        live[str(number)] = shape(str(number), 10)
        while files := choose_files(live.values(), TARGET):
            rows = sum(live.pop(file.path).rows for file in files)
            rewritten += rows
            live[f"{number} {files[0].path}"] = shape(f"{number} {files[0].path}", rows)
    total = 20_000 * 10
    tiers = math.log(TARGET / ROW_BYTES, FANOUT)
    assert rewritten / total <= tiers
    full = total * ROW_BYTES / (TARGET / 2)
    assert len(live) <= full + FANOUT * (tiers + 1)


def test_who_asks_gets_all_small_files_and_all_deleted_rows_gone(rng):
    """However many there are, it ends: what is left is full, or a single small file without a deleted row."""
    live = {}
    for number in range(200):
        rows = rng.choice((10, 1_000, 50_000))
        live[number] = shape(f"f{number}", rows, dead=rng.choice((0, 0, rows // 100)), row_bytes=20)
    jobs = 0
    while files := gather_files(live.values(), TARGET):
        jobs += 1
        assert jobs < 500
        taken = [key for key, each in live.items() if each.file.path in {file.path for file in files}]
        rows = sum(live[key].rows - live[key].dead for key in taken)
        assert sum(live[key].live_bytes for key in taken) <= 1.5 * TARGET or len(taken) == 1
        for key in taken:
            del live[key]
        live[max(live, default=0) + 1] = shape(f"new{jobs}", rows, row_bytes=20)
    small = [each for each in live.values() if each.live_bytes < TARGET / 2]
    assert len(small) <= 1
    assert sum(each.dead for each in live.values()) == 0
