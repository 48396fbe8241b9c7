"""The writer of a history table alone: what it takes over from the table beside it, and how its files are moved."""

import uuid
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from pyroaring import BitMap

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.offsets import CLOSED, ChangeTopic
from cdc_shared.delta.positions import PARTITION_BASE
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TOPIC_PARTITIONS, TableIdentity
from cdc_shared.errors import Fatal
from delta_writer.consumer.event_handler import read_events
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.writer.file_changes import FileRewrite, RewrittenFile, RowsMoved
from delta_writer.writer.history_writer import HistoryWriter

pytestmark = pytest.mark.unit

TOPIC = ChangeTopic("p.db.things", "topic-id", 3)


@pytest.fixture
def current(new_table: Any) -> Snapshot:
    """The state of a table with a column `n`."""
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    return writer.snapshot


@pytest.fixture
def history(new_table: Any) -> HistoryWriter:
    table = new_table("history")
    return HistoryWriter(
        TableLocation(table.url, table.store, {}), TableIdentity("p", "db", "things"), TOPIC, table.cache_dir
    )


def with_txns(current: Snapshot, base: int = 0, **offsets: int) -> Snapshot:
    """The table's state with other offsets: `p0=7` is partition 0 of its topic, `old=…` one of an older topic."""
    names = {name: f"cdc:topic-id:{name[1]}" if name[0] == "p" else f"cdc:{name}-id:0" for name in offsets}
    assert current.metadata is not None
    configuration = {**current.metadata.configuration, PARTITION_BASE: str(base), TOPIC_PARTITIONS: "3"}
    metadata = replace(current.metadata, configuration=configuration)
    return Snapshot(5, current.protocol, metadata, {names[name]: to for name, to in offsets.items()})


def offsets(history: HistoryWriter) -> dict[str, int]:
    return dict(history.snapshot.txns)


def test_it_begins_with_the_columns_and_at_the_offsets_of_the_table(history, current):
    history.follow(with_txns(current, p0=7, p2=9))
    assert (history.version, offsets(history)) == (0, {"cdc:topic-id:0": 7, "cdc:topic-id:2": 9})
    assert [field.name for field in history.schema.fields] == ["_id", "n"]
    assert history.follow(with_txns(current, p0=7, p2=9)) is None


def test_without_a_table_there_is_nothing_to_begin_from(history):
    assert history.follow(Snapshot()) is None
    assert history.version == -1


def test_what_it_knows_itself_it_keeps(history, current):
    """Attacks I2: the table may be ahead of a history that was off, and behind one after a crash."""
    history.follow(with_txns(current, p0=7))
    assert history.follow(with_txns(current, p0=12)) is None
    assert history.follow(with_txns(current, p0=3)) is None


def test_a_partition_that_was_first_read_without_it_is_taken_over(history, current):
    history.follow(with_txns(current, p0=7))
    history.follow(with_txns(current, p0=9, p1=4))
    assert offsets(history) == {"cdc:topic-id:0": 7, "cdc:topic-id:1": 4}


def test_a_topic_that_was_left_behind_is_closed(history, current):
    history.follow(with_txns(current, old=7))
    with pytest.raises(Fatal, match=r"cannot go on without a gap .*made again"):
        history.next_offset(0, 0, 5)
    history.follow(with_txns(current, base=1, old=CLOSED, p0=2, p1=0, p2=0))
    assert offsets(history)["cdc:old-id:0"] == CLOSED
    assert (history.partition_base, history.next_offset(0, 0, 5)) == (1, 2)


def test_after_a_new_start_it_goes_on_exactly_where_the_table_does(history, current):
    """Over a gap, and back to the end of a topic that lost records."""
    history.follow(with_txns(current, p0=7, p1=7))
    history.follow(with_txns(current, base=1, p0=20, p1=5))
    assert offsets(history) == {"cdc:topic-id:0": 20, "cdc:topic-id:1": 5}


def test_what_is_known_of_before_a_new_start_is_not_followed(history, current):
    """Attacks I4: another writer has seen the new start already."""
    history.follow(with_txns(current, base=1, p0=20))
    assert history.follow(with_txns(current, p0=7)) is None
    assert (history.partition_base, offsets(history)) == (1, {"cdc:topic-id:0": 20})


def test_it_follows_the_table_over_a_change_of_partitions(history, current):
    history.follow(with_txns(current, p0=7))
    topic = ChangeTopic("p.db.things", "topic-id", 4)
    later = HistoryWriter(history.location, TableIdentity("p", "db", "things"), topic, history.cache_dir)
    with pytest.raises(Fatal, match=r"without a gap .*had 3 partitions and now has 4"):
        later.next_offset(0, 0, 50)
    anew = with_txns(current, base=3, p0=20, p1=0, p2=0, p3=0)
    configuration = {**anew.metadata.configuration, TOPIC_PARTITIONS: "4"}
    later.follow(Snapshot(6, anew.protocol, replace(anew.metadata, configuration=configuration), anew.txns))
    assert [later.next_offset(partition, 0, 50) for partition in range(4)] == [20, 0, 0, 0]


def test_two_writers_begin_one_history(history, current):
    """Attacks I4."""
    other = HistoryWriter(history.location, TableIdentity("p", "db", "things"), TOPIC, history.cache_dir)
    history.follow(with_txns(current, p0=7))
    assert other.follow(with_txns(current, p0=9)) is None
    assert (other.version, offsets(other)) == (0, {"cdc:topic-id:0": 7})


def test_files_that_are_gone_are_not_replaced(history, current, new_table):
    """Attacks I8."""
    table = new_table()
    history.follow(with_txns(current))
    for n in range(2):
        decoded = decode_events(read_events(table.batch([(n, {"n": n})])).events, history.schema)
        history.commit(encode_batch(decoded, history.schema, history=True))
        table.committed = table.next_offset
    first, second = history.snapshot.files.values()
    rewrite = rewrite_of([first, second])
    history.replace_files(rewrite_of([first]))
    with pytest.raises(RowsMoved, match=first.path):
        history.replace_files(rewrite)
    assert second.path in history.snapshot.files
    assert not any(out.add.path in history.snapshot.files for out in rewrite.outputs)


def rewrite_of(files: list[AddFile]) -> FileRewrite:
    name = str(uuid.uuid4())
    rows = np.arange(len(files), dtype=np.uint32)
    out = RewrittenFile(replace(files[0], path=name), np.zeros((len(files), 2), np.uint64), rows, rows)
    return FileRewrite(2, {file.path: BitMap() for file in files}, [out], name)
