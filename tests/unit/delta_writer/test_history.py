"""A pipeline that keeps a history: the table of every event, beside the one of the current state."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from deltalake import DeltaTable
from fake_kafka import SOURCE, TOPIC
from local_pipeline import LocalPipeline
from msgspec.structs import replace

from cdc_shared.delta.actions import Action, Transaction
from cdc_shared.delta.foreign_commits import ForeignCommit
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import table_location
from cdc_shared.delta.table_metadata import TableIdentity, schema_of
from cdc_shared.documents import canonical_row
from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer import pipeline as pipeline_module
from delta_writer.maintenance.restore import TableRestore
from delta_writer.writer.delta_writer import DeltaWriter

pytestmark = pytest.mark.unit

HISTORY = "things__changes"


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
def run(tmp_path: Any) -> LocalPipeline:
    return LocalPipeline(tmp_path, history=True)


def send_random(run: LocalPipeline, rng: random.Random, events: int) -> None:
    """Send a mix of what a change topic can hold."""
    for _ in range(events):
        key = str(rng.randrange(8))
        match rng.randrange(10):
            case 0:
                run.kafka.send(key, "d", None)
                run.kafka.send_raw(json.dumps({"id": key}).encode(), None)
            case 1:
                run.kafka.send(key, "u", None)
            case 2:
                run.kafka.send_raw(b"k", b"not json")
            case 3:
                after = {"op": "u", "after": "{broken", "source": SOURCE}
                run.kafka.send_raw(json.dumps({"id": key}).encode(), json.dumps(after).encode())
            case kind:
                document: dict[str, Any] = {"_id": int(key), "n": rng.randrange(1000)}
                if kind == 4:
                    document["m"] = rng.choice([1.5, "text", [1], {"x": 1}, None])
                run.kafka.send(key, rng.choice("cur"), document)


def expected_changes(run: LocalPipeline) -> list[tuple[int, str, str]]:
    """Offset, op and key of every event that belongs in the history, by offset."""
    changes = []
    for offset, record in enumerate(run.kafka.topics[TOPIC]):
        try:
            event = json.loads(record.value() or b"")
        except ValueError:
            continue
        after = event["after"]
        if (after is None and event["op"] != "d") or after == "{broken":
            continue
        changes.append((offset, event["op"], json.loads(record.key() or b"")["id"]))
    return changes


def expected_letters(run: LocalPipeline) -> set[int]:
    """Offset of every record that is a dead letter. One that is written twice has one key and is one letter."""
    records = enumerate(run.kafka.topics[TOPIC])
    return {n for n, record in records if record.value() == b"not json" or b"{broken" in (record.value() or b"")}


def check(run: LocalPipeline, *, killed: bool = False) -> None:
    """The history has each event once, in its order, and its last event of each key is the current state.

    After a kill the tables may have met types in another order, so that one has a value in a column that the other has
    rescued: the same document then, in canonical form, and otherwise the same columns.
    """
    history = run.rows(HISTORY, "_cdc_offset").to_pylist()
    assert [(row["_cdc_offset"], row["_cdc_op"], row["_cdc_key"]) for row in history] == expected_changes(run)
    last = {row["_cdc_key"]: row for row in history}
    assert all(value is None for row in history if row["_cdc_op"] == "d" for value in document(row).values())
    current = {row["_cdc_key"]: row for row in run.rows().to_pylist()}
    assert current.keys() == {key for key, row in last.items() if row["_cdc_op"] != "d"}
    for key, row in current.items():
        assert documents_and_places(run, "things", row) == documents_and_places(run, HISTORY, last[key])
        assert killed or row == {name: value for name, value in last[key].items() if name != "_cdc_op"}


def documents_and_places(run: LocalPipeline, name: str, row: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A row's document in canonical form, and what the platform's own columns say of its event."""
    schema = schema_of(log_of(run, name).load().metadata)
    own = {column: row[column] for column in row if column.startswith("_cdc_")}
    return canonical_row(row, schema, own.pop("_cdc_rescued")), own | {"_cdc_op": None}


def document(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_cdc_")}


def log_of(run: LocalPipeline, name: str) -> DeltaLog:
    return DeltaLog(open_store(f"{run.root}/p/db/{name}", ObjectStoreSettings()))


def test_every_event_is_a_row_and_the_last_of_each_key_is_the_current_state(run, request):
    """Attacks I2 and I6, over restarts and batches of any size."""
    seed = request.config.getoption("--hypothesis-seed")
    print(f"seed {seed}")
    rng = random.Random(f"{seed}")
    for _ in range(4):
        send_random(run, rng, 25)
        run.kafka.records_a_poll = rng.choice([1, 3, 1000])
        run.go()
        check(run)
    assert sorted(letter.offset for letter in run.letters) == sorted(expected_letters(run))


def die_in(monkeypatch: pytest.MonkeyPatch, mode: str, *, after_put: bool) -> None:
    """Let the next commit of a batch with rows to the table of this mode kill the process."""
    real = DeltaWriter._append

    def append(self: DeltaWriter, actions: list[Any], commit_id: str | None = None) -> None:
        if self.mode != mode or not any(action.add for action in actions):
            real(self, actions, commit_id)
            return
        monkeypatch.setattr(DeltaWriter, "_append", real)
        if after_put:
            real(self, actions, commit_id)
        raise Killed

    monkeypatch.setattr(DeltaWriter, "_append", append)


@pytest.mark.parametrize("mode", ["history", "deletion_vectors"])
@pytest.mark.parametrize("after_put", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_kill_between_the_two_commits_is_made_good(run, monkeypatch, request, mode, after_put, first):
    """Attacks I1 and I2: each table drops the events that it has, and takes those that it lacks."""
    rng = random.Random(f"{request.config.getoption('--hypothesis-seed')}")
    run.kafka.send("1", "c", {"_id": 1, "n": 0})
    if not first:
        run.go()
    send_random(run, rng, 20)
    run.kafka.send("1", "u", {"_id": 1, "n": -1})
    die_in(monkeypatch, mode, after_put=after_put)
    with pytest.raises(Killed):
        run.go()
    letters = len(run.letters)
    send_random(run, rng, 20)
    run.kafka.records_a_poll = rng.choice([1, 4, 1000])
    run.go()
    check(run, killed=True)
    assert {letter.offset for letter in run.letters} == expected_letters(run)
    if mode == "deletion_vectors" and after_put:  # both tables have them: they are not written again
        assert len(run.letters) == len(expected_letters(run)) >= letters


def test_a_store_that_is_away_between_the_two_commits_is_waited_out(run, monkeypatch):
    """Attacks I3."""
    real, failures = DeltaWriter._append, iter([Transient("away"), Transient("away")])

    def append(self: DeltaWriter, *args: Any) -> None:
        if self.mode == "deletion_vectors" and (failure := next(failures, None)):
            raise failure
        real(self, *args)

    monkeypatch.setattr(DeltaWriter, "_append", append)
    run.kafka.send("1", "c", {"_id": 1})
    run.kafka.send("1", "d", None)
    run.kafka.send("2", "c", {"_id": 2})
    run.go()
    check(run)
    assert log_of(run, HISTORY).load().version == 0


@pytest.mark.parametrize("mode", ["history", "deletion_vectors"])
def test_a_table_that_somebody_else_moved_is_read_again_from_the_lower(run, monkeypatch, mode):
    """Attacks I2: another writer commits to one of the tables while the batch is in hand."""
    run.kafka.send("1", "c", {"_id": 1, "n": 0})
    run.go()
    run.kafka.send("1", "u", {"_id": 1, "n": 1})
    run.kafka.send("2", "c", {"_id": 2, "n": 2})
    real = DeltaWriter.commit

    def commit(self: DeltaWriter, batch: Any) -> Any:
        if self.mode == mode:
            monkeypatch.setattr(DeltaWriter, "commit", real)
            run.go()
        return real(self, batch)

    monkeypatch.setattr(DeltaWriter, "commit", commit)
    run.go()
    run.kafka.send("3", "c", {"_id": 3, "n": 3})
    run.go()
    check(run)


def test_documents_are_decoded_once_for_both_tables(run, monkeypatch):
    decoded: list[int] = []
    real: Callable[..., Any] = pipeline_module.decode_events

    def decode_events(events: Any, *others: Any) -> Any:
        decoded.append(len(events))
        return real(events, *others)

    monkeypatch.setattr(pipeline_module, "decode_events", decode_events)
    for document in ({"n": 1, "later": None}, {"n": 1.5}, {"n": 2, "later": "x"}, {"more": {"a": 1}}):
        run.kafka.send("1", "u", {"_id": 1, **document})
        run.go()
    assert decoded == [1, 1, 1, 1]
    check(run)
    assert schema_of(log_of(run, "things").load().metadata) == schema_of(log_of(run, HISTORY).load().metadata)


def test_what_changes_no_row_of_today_is_a_row_of_the_history(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    run.kafka.send("77", "d", None)
    run.go()
    check(run)
    assert [log_of(run, name).load().txns for name in ("things", HISTORY)] == [{f"cdc:id-{TOPIC}:0": 2}] * 2


def test_a_history_of_what_changes_nothing_is_not_committed(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    before = log_of(run, HISTORY).load().version
    run.kafka.send("1", "u", None)
    run.kafka.records_a_poll = 1
    stops = iter([False, True])
    run.kafka.when_drained = lambda: run.stop.set() if next(stops) else None
    run.go()  # a clean stop commits the range alone, in both
    assert [log_of(run, name).load().version for name in ("things", HISTORY)] == [before + 1] * 2
    check(run)


def turn_history(run: LocalPipeline, *, on: bool) -> None:
    spec = run.spec.model_dump()
    spec["sink"]["history"] = on
    run.spec = PipelineSpec.model_validate(spec)


def test_a_history_that_is_begun_later_begins_where_the_table_stands(run, request):
    rng = random.Random(f"{request.config.getoption('--hypothesis-seed')}")
    turn_history(run, on=False)
    send_random(run, rng, 30)
    run.kafka.send("1", "c", {"_id": 1, "n": 1, "s": "known before"})
    run.go()
    begun = len(run.kafka.topics[TOPIC])
    run.kafka.low = begun - 3  # the rest is no longer in Kafka
    turn_history(run, on=True)
    run.go()
    assert run.rows(HISTORY).num_rows == 0
    assert "s" in run.rows(HISTORY).column_names
    run.kafka.send("1", "u", {"_id": 1, "n": 2})
    run.kafka.send("1", "d", None)
    run.go()
    history = run.rows(HISTORY, "_cdc_offset").select(["_cdc_offset", "_cdc_op", "n"]).to_pylist()
    assert history == [
        {"_cdc_offset": begun, "_cdc_op": "u", "n": 2},
        {"_cdc_offset": begun + 1, "_cdc_op": "d", "n": None},
    ]


def test_a_history_that_was_off_catches_up_from_kafka(run, request):
    """Attacks I2: reading begins at the lower of the two; the current state drops what it has."""
    rng = random.Random(f"{request.config.getoption('--hypothesis-seed')}")
    run.kafka.send("1", "c", {"_id": 1, "n": 0})
    run.go()
    turn_history(run, on=False)
    send_random(run, rng, 30)
    run.go()
    letters = len(run.letters)
    version = log_of(run, "things").load().version
    turn_history(run, on=True)
    run.go()
    check(run)
    assert len(run.letters) == letters
    assert log_of(run, "things").load().version == version


def test_a_history_that_kafka_cannot_complete_stops_and_says_what_to_do(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    turn_history(run, on=False)
    for n in range(5):
        run.kafka.send("1", "u", {"_id": 1, "n": n})
    run.go()
    run.kafka.low = 4
    turn_history(run, on=True)
    with pytest.raises(Fatal, match=rf"history table .*{HISTORY} cannot go on without a gap .*Move it away.*sink\.h"):
        run.go()


def test_a_collection_whose_name_ends_like_a_history_is_refused(run):
    run.kafka.send("1", "c", {"_id": 1}, topic="p.db.things__changes", source={**SOURCE, "collection": HISTORY})
    with pytest.raises(Fatal, match=r"collection db\.things__changes would go where the history of things goes"):
        run.go()


def test_people_may_delete_from_a_history_and_not_insert(run):
    for n in range(4):
        run.kafka.send("1", "u", {"_id": 1, "n": n})
    run.go()
    url = f"{run.root}/p/db/{HISTORY}"
    DeltaTable(url).delete("_cdc_offset < 2")
    run.kafka.send("1", "u", {"_id": 1, "n": 4})
    run.go()
    assert run.rows(HISTORY, "_cdc_offset")["n"].to_pylist() == [2, 3, 4]
    version = DeltaTable(url).version()
    DeltaTable(url).update({"n": "0"})
    with pytest.raises(
        ForeignCommit, match=rf"\(UPDATE, .*restore p things --history --version {version} --spec FILE`"
    ):
        run.go()


@pytest.mark.parametrize("history", [False, True])
def test_either_table_can_be_restored_alone(run, request, history):
    """Attacks I2: reading goes back for the restored one, and the other drops what it has."""
    rng = random.Random(f"{request.config.getoption('--hypothesis-seed')}")
    for _ in range(5):
        send_random(run, rng, 15)
        run.go()
    where = table_location(run.spec, ObjectStoreSettings(), Collection("db", "things"), history=history)
    mode = "history" if history else "deletion_vectors"
    topic = ChangeTopic(TOPIC, f"id-{TOPIC}", 1)
    table = TableRestore(where, TableIdentity("p", "db", "things"), topic, mode, time.time)
    table.apply(table.plan(1, lambda _: (0, len(run.kafka.topics[TOPIC]))))
    send_random(run, rng, 5)
    run.go()
    check(run)


def test_after_a_resync_the_history_goes_on_where_the_table_does(run):
    """A gap of the current state is one of the history, and not a reason to stop it."""
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    run.kafka.send("1", "u", {"_id": 1, "n": "lost"})
    run.kafka.send("1", "u", {"_id": 1, "n": "read"})
    run.kafka.low = 2
    log, snapshot = log_of(run, "things"), log_of(run, "things").load()
    go_on_from(log, snapshot, 2, base=1)
    run.go()
    history = run.rows(HISTORY, "_cdc_offset").select(["_cdc_partition", "_cdc_offset"]).to_pylist()
    assert history == [{"_cdc_partition": 0, "_cdc_offset": 0}, {"_cdc_partition": 1, "_cdc_offset": 2}]


def go_on_from(log: DeltaLog, snapshot: Any, offset: int, *, base: int) -> None:
    metadata = snapshot.metadata
    metadata = replace(metadata, configuration={**metadata.configuration, "cdc.partitionBase": str(base)})
    log.append(
        snapshot.version + 1,
        [
            Action(commit_info={"operation": "CDC RESYNC", "engineInfo": "cdc-delta-writer"}),
            Action(meta_data=metadata),
            Action(txn=Transaction(f"cdc:id-{TOPIC}:0", offset)),
        ],
    )


def test_a_re_read_that_finds_nothing_is_a_delete_and_one_that_does_says_so(run):
    run.source.documents["things"] = [{"_id": 1, "n": "now"}]
    run.kafka.send("1", "x", None)
    run.kafka.send("2", "x", None)
    run.go()
    found = run.rows(HISTORY, "_cdc_offset").select(["_cdc_op", "n"]).to_pylist()
    assert found == [{"_cdc_op": "x", "n": "now"}, {"_cdc_op": "d", "n": None}]


def test_the_history_can_be_read_without_deletion_vectors(run):
    run.kafka.send("1", "c", {"_id": 1})
    run.go()
    table = DeltaTable(f"{run.root}/p/db/{HISTORY}")
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    assert table.to_pyarrow_table().num_rows == 1
