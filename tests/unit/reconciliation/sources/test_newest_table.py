"""The table as it goes on: versions are read once, what was given out stays, another table is noticed."""

from pathlib import Path
from typing import Any

import obstore
import pytest
from maintained_table import TableWriter
from scanned_table import hash_of, locations_by_hash, scan_table

from cdc_shared.delta.log import DeltaLog
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from reconciliation.reconciler.result import TopicPositions
from reconciliation.sources.deltalake_reader import PinnedTable
from reconciliation.sources.newest_table import TableFollower

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def writer(tmp_path: Path) -> TableWriter:
    return TableWriter(str(tmp_path / "table"), STORES, tmp_path / "cache")


def positions(writer: TableWriter) -> TopicPositions:
    return TopicPositions(writer.topic.topic_id, dict.fromkeys(range(writer.topic.partitions), 0))


def follower(writer: TableWriter) -> TableFollower:
    return TableFollower(open_store(writer.url, STORES), writer.topic.name)


def test_it_goes_on_with_the_table_and_what_it_gave_out_stays(writer: TableWriter) -> None:
    writer.apply([(1, {"n": 1})])
    following, topic = follower(writer), positions(writer)
    first = following.newest(topic)
    assert following.newest(topic) is first
    writer.apply([(1, {"n": 2}), (2, {"n": 2})])
    second = following.newest(topic)
    assert second.version > first.version
    assert (first.positions, second.positions) == ({0: 1}, {0: 3})
    assert first.snapshot.files != second.snapshot.files
    rows = {key: row.values["n"] for key, row in following.rows(second, {hash_of("1"): (), hash_of("2"): ()})}
    assert rows == {hash_of("1"): 2, hash_of("2"): 2}
    assert [row.values["n"] for _, row in following.rows(first, {hash_of("1"): (), hash_of("2"): ()})] == [1]


def test_reading_on_asks_for_what_is_new_alone(writer: TableWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        writer.apply([(number, {"n": 1})])
    following, topic = follower(writer), positions(writer)
    following.newest(topic)
    read: list[int] = []
    original = DeltaLog.read_entry

    def counted(log: DeltaLog, version: int) -> Any:
        read.append(version)
        return original(log, version)

    monkeypatch.setattr(DeltaLog, "read_entry", counted)
    following.newest(topic)
    version = following.newest(topic).version
    assert read == [version + 1] * 2


def test_known_places_save_the_search(writer: TableWriter) -> None:
    writer.apply([(1, {"n": 1}), (2, {"n": 2})])
    store = open_store(writer.url, STORES)
    scanned = PinnedTable.newest(store, writer.topic)
    places = locations_by_hash(scanned, scan_table(scanned))
    following = TableFollower(store, writer.topic.name, scanned.table_id, scanned.snapshot.files)
    table = following.newest(positions(writer))
    assert [row.values["n"] for _, row in following.rows(table, {hash_of("1"): (places[hash_of("1")],)})] == [1]
    assert list(following.rows(table, {hash_of("2"): ()})) == [], "the scan did not see it there"


def test_another_topic_has_no_watermark_and_stands_at_its_beginning(writer: TableWriter) -> None:
    writer.apply([(1, {"n": 1})])
    table = follower(writer).newest(TopicPositions("made again", {0: 5}))
    assert (table.positions, table.watermark_ms) == ({0: 0}, None)


def test_a_table_that_was_made_again_is_not_compared_on(writer: TableWriter, tmp_path: Path) -> None:
    writer.apply([(1, {"n": 1})])
    store = open_store(writer.url, STORES)
    following = TableFollower(store, writer.topic.name, "another")
    with pytest.raises(Fatal, match="start another job"):
        following.newest(positions(writer))


def test_no_table(writer: TableWriter) -> None:
    with pytest.raises(Fatal, match="no table"):
        follower(writer).newest(positions(writer))


def test_a_store_that_fails_is_told_as_such(writer: TableWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.apply([(1, {"n": 1})])

    def fails(*_: object) -> None:
        raise obstore.exceptions.BaseError("timed out")

    monkeypatch.setattr(DeltaLog, "load", fails)
    with pytest.raises(Exception, match="the log of the table") as caught:
        follower(writer).newest(positions(writer))
    assert type(caught.value).__module__ == "cdc_shared.errors"
