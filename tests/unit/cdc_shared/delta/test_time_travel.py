"""The version of a table for a time in the source."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore, ObjectStore

from cdc_shared.delta.actions import Action
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.time_travel import AsOf, NoSuchMoment, table_watermark, version_as_of, watermark_id
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit

OURS: Mapping[str, Any] = {"cdcTopic": "p.db.things"}
FOREIGN: Mapping[str, Any] = {"operation": "OPTIMIZE"}


def at(time_ms: int | str) -> dict[str, Any]:
    return {**OURS, "cdcWatermark": time_ms}


def table(path: Path, infos: Iterable[Mapping[str, Any]]) -> LocalStore:
    store = LocalStore(path, mkdir=True)
    for version, info in enumerate(infos):
        DeltaLog(store).append(version, [Action(commit_info=dict(info))])
    return store


def clean_up(path: Path, before: int, checkpoint: int) -> None:
    """As log clean-up leaves it: entries before `before` are gone, a checkpoint is behind them."""
    for version in range(before):
        (path / "_delta_log" / f"{version:020d}.json").unlink()
    (path / "_delta_log" / f"{checkpoint:020d}.checkpoint.parquet").write_bytes(b"PAR1")


def test_the_newest_version_whose_watermark_is_not_later(tmp_path: Path) -> None:
    store = table(tmp_path, [OURS, at(1000), at(1000), at(3000), at(5000)])
    asked = {1000: (2, 1000), 2999: (2, 1000), 3000: (3, 3000), 5000: (4, 5000), 9999: (4, 5000)}
    assert {time_ms: tuple(version_as_of(store, time_ms)) for time_ms in asked} == asked


def test_entries_of_others_leave_the_watermark_as_it_was(tmp_path: Path) -> None:
    store = table(tmp_path, [OURS, FOREIGN, at("1000"), FOREIGN, FOREIGN, at("2000"), FOREIGN])
    assert version_as_of(store, 1500) == AsOf(4, 1000)
    assert version_as_of(store, 2000) == AsOf(6, 2000)


def test_a_watermark_that_was_lost_on_the_way_is_found_again(tmp_path: Path) -> None:
    """A resync makes it undefined until the new snapshot is swept."""
    store = table(tmp_path, [at(1000), OURS, OURS, OURS, at(4000)])
    assert version_as_of(store, 2000) == AsOf(0, 1000)
    assert version_as_of(store, 4000) == AsOf(4, 4000)


def test_the_reason_why_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoSuchMoment, match="no Delta table"):
        version_as_of(table(tmp_path / "none", []), 1000)
    with pytest.raises(NoSuchMoment, match="no watermark yet: its snapshot is not complete"):
        version_as_of(table(tmp_path / "undefined", [OURS, FOREIGN]), 1000)
    with pytest.raises(NoSuchMoment, match=r"no watermark before 1970-01-01T00:00:02\+00:00 \(version 1\)"):
        version_as_of(table(tmp_path / "early", [OURS, at(2000)]), 1000)


def test_a_table_goes_back_to_its_first_checkpoint(tmp_path: Path) -> None:
    """Entries between the cleaned-up ones and the first checkpoint are there, but nothing leads to them."""
    store = table(tmp_path, [at(1000 * version) for version in range(20)])
    clean_up(tmp_path, before=5, checkpoint=10)
    assert version_as_of(store, 10_500) == AsOf(10, 10_000)
    with pytest.raises(NoSuchMoment, match=r"cannot go back further than 1970-01-01T00:00:10\+00:00 \(version 10\)"):
        version_as_of(store, 9_000)


def test_few_entries_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: Random) -> None:
    infos = [FOREIGN if rng.random() < 0.1 else at(1000 * version) for version in range(1000)]
    store = table(tmp_path, infos)
    reads: list[int] = []
    real = DeltaLog.read_entry
    monkeypatch.setattr(DeltaLog, "read_entry", lambda log, version: reads.append(version) or real(log, version))
    for _ in range(20):
        reads.clear()
        version, watermark_ms = version_as_of(store, rng.randrange(1_000_000))
        assert watermark_ms <= 1000 * version
        assert len(reads) <= 3 * math.log2(len(infos))


def test_the_middle_of_a_long_log_is_not_listed(monkeypatch: pytest.MonkeyPatch, rng: Random) -> None:
    """A quiet table has half a million entries in 30 days."""
    store = MemoryStore()
    for version in range(2000, 5000):
        DeltaLog(store).append(version, [Action(commit_info=at(1000 * version))])
    for checkpoint in range(2000, 5000, 100):
        obstore.put(store, f"_delta_log/{checkpoint:020d}.checkpoint.parquet", b"PAR1")
    obstore.put(store, "_delta_log/_last_checkpoint", b'{"version":4900,"size":1}')
    listed: list[str] = []
    real = obstore.list

    def noted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for page in real(*args, **kwargs):
            listed.extend(item["path"] for item in page)
            yield page

    monkeypatch.setattr(obstore, "list", noted)
    moment = rng.randrange(2_000_000, 5_000_000)
    assert version_as_of(store, moment) == AsOf(moment // 1000, moment // 1000 * 1000)
    assert len(listed) < 200
    assert version_as_of(store, 9_999_999).version == 4999
    with pytest.raises(NoSuchMoment, match=r"\(version 2000\)"):
        version_as_of(store, 1_999_999)


def test_only_a_whole_checkpoint_leads_anywhere(tmp_path: Path) -> None:
    store = table(tmp_path, [at(1000 * version) for version in range(20)])
    clean_up(tmp_path, before=5, checkpoint=15)
    log = tmp_path / "_delta_log"
    (log / f"{10:020d}.checkpoint.{1:010d}.{2:010d}.parquet").write_bytes(b"PAR1")
    assert DeltaLog(store).readable_versions() == range(15, 20)
    (log / f"{10:020d}.checkpoint.{2:010d}.{2:010d}.parquet").write_bytes(b"PAR1")
    assert DeltaLog(store).readable_versions() == range(10, 20)
    for path in log.glob("*.parquet"):
        path.unlink()
    with pytest.raises(Fatal, match=r"begins with _delta_log/0+5\.json, and no whole checkpoint leads there"):
        version_as_of(store, 10_000)


def test_a_gap_in_the_log_is_an_error(tmp_path: Path) -> None:
    store = table(tmp_path, [at(1000 * version) for version in range(20)])
    (tmp_path / "_delta_log" / f"{10:020d}.json").unlink()
    with pytest.raises(Fatal, match=r"lacks _delta_log/0+10\.json, although version 19 exists"):
        version_as_of(store, 10_500)


def test_any_log_gives_what_a_look_at_every_entry_gives(tmp_path: Path, rng: Random) -> None:
    for number in range(30):
        infos, now = [], 0
        for version in range(rng.randint(1, 40)):
            now += rng.choice([0, 1, 5])
            infos.append(FOREIGN if rng.random() < 0.3 else at(now) if now or version > 5 else OURS)
        store = table(tmp_path / str(number), infos)
        marks: list[int | None] = []
        for info in infos:
            marks.append(marks[-1] if info is FOREIGN and marks else info.get("cdcWatermark"))
        for time_ms in range(now + 2):
            found = [v for v, mark in enumerate(marks) if mark is not None and mark <= time_ms]
            assert _found(store, time_ms) == (found[-1] if found else None)


def _found(store: ObjectStore, time_ms: int) -> int | None:
    try:
        return version_as_of(store, time_ms).version
    except NoSuchMoment:
        return None


def test_the_tables_watermark_is_its_partitions_lowest() -> None:
    txns = {watermark_id("id", 0): 3000, watermark_id("id", 1): 2000, watermark_id("other", 2): 1}
    assert table_watermark(txns, "id", 2) == 2000
    assert table_watermark(txns, "id", 3) is None
    assert table_watermark(txns | {watermark_id("id", 0): -1}, "id", 2) is None  # a restore took it back
