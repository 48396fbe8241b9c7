"""Where a table stands, and whether an event is one of its rows."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdc_shared.dead_letters.event_rows import EventRows
from cdc_shared.delta.actions import Action, AddFile, Metadata, TableFormat, Transaction
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.stats import file_stats
from cdc_shared.errors import CdcError
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.unit

TOPIC = TopicIdentity("id", 2)
Event = tuple[int, int, int]
"""Partition as the row says it, offset, source time in ms."""


def append(
    directory: Path,
    events: list[Event],
    *,
    stands: dict[int, int] | None = None,
    base: int = 0,
    statistics: bool = True,
    row_group_rows: int | None = None,
) -> None:
    """A commit with one file of those rows, in that order."""
    partitions, offsets, source_ts_ms = zip(*events, strict=True)
    columns: dict[str, Any] = {
        "_cdc_key": pa.nulls(len(events), pa.string()),
        "_cdc_source_ts": pa.array([ts * 1000 for ts in source_ts_ms]).cast(pa.timestamp("us", "UTC")),
        "_cdc_partition": pa.array(partitions, pa.int32()),
        "_cdc_offset": pa.array(offsets, pa.int64()),
    }
    rows = pa.table(columns)
    log = DeltaLog(open_store(str(directory), ObjectStoreSettings()))
    version = log.load().version + 1
    path = f"{version}.parquet"
    pq.write_table(rows, directory / path, row_group_size=row_group_rows, write_statistics=statistics)
    stats = file_stats(rows, pq.read_metadata(directory / path)) if statistics else None
    metadata = Metadata("id", TableFormat("parquet", {}), "{}", [], {"cdc.partitionBase": str(base)})
    txns = [Transaction(f"cdc:id:{partition}", offset) for partition, offset in (stands or {}).items()]
    add = AddFile(path, {}, (directory / path).stat().st_size, 0, data_change=True, stats=stats)
    log.append(version, [Action(meta_data=metadata), Action(add=add), *(Action(txn=txn) for txn in txns)])


def event_rows(directory: Path) -> EventRows:
    return EventRows(open_store(str(directory), ObjectStoreSettings()), str(directory))


def test_a_table_that_does_not_exist_has_read_nothing_and_holds_nothing(tmp_path: Path) -> None:
    rows = event_rows(tmp_path / "none")
    assert not rows.has_read(TOPIC, 0, 0)
    assert not rows.holds(TOPIC, 0, 0, 1)


def test_the_next_offset_of_each_partition_is_not_read_yet(tmp_path: Path) -> None:
    append(tmp_path, [(0, 1, 1)], stands={0: 7})
    rows = event_rows(tmp_path)
    assert [rows.has_read(TOPIC, 0, offset) for offset in (0, 6, 7, 8)] == [True, True, False, False]
    assert not rows.has_read(TOPIC, 1, 0)
    assert not rows.has_read(TopicIdentity("made again", 2), 0, 0)


def test_rows_are_found_wherever_they_lie(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--hypothesis-seed")
    print(f"seed {seed}")
    rng = random.Random(f"{seed}")
    places = [(partition, offset) for partition in range(2) for offset in range(60)]
    held: dict[tuple[int, int], int] = {place: rng.randrange(5) for place in places if rng.random() < 0.5}
    left = list(held)
    rng.shuffle(left)
    while left:
        count = rng.randrange(1, 20)
        append(tmp_path, [(*place, held[place]) for place in left[:count]])
        del left[:count]
    rows = event_rows(tmp_path)
    for place in places:
        for ts in range(5):
            assert rows.holds(TOPIC, *place, ts) == (held.get(place) == ts), (place, ts)


def test_only_what_may_hold_the_event_is_read_and_that_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks the cost: the statistics of files, then those of row groups, tell where to look."""
    for start in range(0, 50_000, 10_000):
        append(tmp_path, [(0, offset, 1) for offset in range(start, start + 10_000)], row_group_rows=1000)
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def read_row_group(self: pq.ParquetFile, group: int, **kwargs: Any) -> pa.Table:
        read.append(group)
        assert len(kwargs["columns"]) == 3
        return real(self, group, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    rows = event_rows(tmp_path)
    assert all(rows.holds(TOPIC, 0, offset, 1) for offset in range(23_000, 25_000))
    assert read == [3, 4]
    assert not rows.holds(TOPIC, 0, 50_000, 1)
    assert read == [3, 4]


def test_files_are_told_by_their_time_where_partitions_are_far_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks the cost: each file spans nearly all offsets, and so does each of its row groups."""
    seconds = [1_700_000_000_000 + 1000 * n for n in range(20)]
    for n, ts in enumerate(seconds):
        append(tmp_path, [(0, 10 * n + 100_000, ts), (1, n, ts + 7)])
    rows = event_rows(tmp_path)
    opened: list[int] = []
    real = rows._open
    monkeypatch.setattr(rows, "_opened", lambda file: opened.append(file) or real(file))  # type: ignore[func-returns-value]
    assert rows.holds(TOPIC, 0, 100_050, seconds[5])
    assert rows.holds(TOPIC, 1, 5, seconds[5] + 7)
    assert not rows.holds(TOPIC, 0, 100_051, seconds[6])
    assert set(opened) <= {5, 6}


def test_files_and_row_groups_without_statistics_are_looked_into(tmp_path: Path) -> None:
    append(tmp_path, [(0, 5, 1), (1, 4, 1)], statistics=False)
    rows = event_rows(tmp_path)
    assert rows.holds(TOPIC, 0, 5, 1)
    assert rows.holds(TOPIC, 1, 4, 1)
    assert not rows.holds(TOPIC, 1, 5, 1)


def test_rows_from_before_a_new_start_are_found_too(tmp_path: Path) -> None:
    """The partition counts from the base, which is 4 after two new starts of a topic of two partitions."""
    append(tmp_path, [(0, 1, 11), (3, 2, 12), (4, 3, 13), (5, 1, 99)], base=4)
    rows = event_rows(tmp_path)
    assert [rows.holds(TOPIC, *event) for event in [(0, 1, 11), (1, 2, 12), (0, 3, 13), (1, 1, 99)]] == [True] * 4
    assert [rows.holds(TOPIC, *event) for event in [(1, 1, 11), (0, 2, 12), (1, 3, 13), (0, 1, 99)]] == [False] * 4


def test_a_file_that_is_gone_is_an_error_and_no_answer(tmp_path: Path) -> None:
    append(tmp_path, [(0, 1, 1)])
    rows = event_rows(tmp_path)
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    with pytest.raises(CdcError, match="looking for an event in"):
        rows.holds(TOPIC, 0, 1, 1)
