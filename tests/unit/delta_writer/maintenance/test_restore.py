"""A restored table, read on from Kafka, becomes what it would have been; what cannot end so is refused."""

import random
from collections.abc import Callable
from typing import Any

import obstore
import pytest
from deltalake import DeltaTable, Field

from cdc_shared.delta.actions import Action, Transaction
from cdc_shared.delta.deletion_vector import vector_location
from cdc_shared.delta.foreign_commits import ENGINE, ForeignCommit
from cdc_shared.delta.log import DeltaLog, VersionGone, entry_path
from cdc_shared.delta.offsets import CLOSED, ChangeTopic, Fenced, OffsetRange
from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import MASKED, TableIdentity
from cdc_shared.errors import Fatal, ResyncNeeded, Transient
from delta_writer.maintenance.remask import PURGE, REMASK
from delta_writer.maintenance.restore import TableRestore

pytestmark = pytest.mark.unit

MODES = ["deletion_vectors", "copy_on_write"]
TOPIC = ChangeTopic("p.db.things", "topic-id", 1)
Change = tuple[int, dict[str, Any] | None]


class Restored:
    """A table, everything that was ever sent to it, and a clock that ticks a minute a commit."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.sent: list[Change] = []
        self.now_s = 1_700_000_000.0
        self.writer = table.open(self.clock)

    def clock(self) -> float:
        return self.now_s

    def send(self, *batches: list[Change]) -> None:
        for batch in batches:
            self.sent += batch
            self.table.apply(self.writer, batch)
            self.now_s += 60

    def restore(self, version: int, held: tuple[int, int] | None = None, topic: ChangeTopic = TOPIC) -> int:
        restoring = self.restoring(topic)
        plan = restoring.plan(version, lambda _: held or (0, len(self.sent)))
        return restoring.apply(plan)

    def restoring(self, topic: ChangeTopic = TOPIC) -> TableRestore:
        location = TableLocation(self.table.url, self.table.store, {})
        return TableRestore(location, TableIdentity("p", "db", "things"), topic, self.table.mode, self.clock)

    def restart(self) -> None:
        """Start a writer on the same cache, and read on from where the table stands."""
        self.writer = self.table.open(self.clock)
        self.read_on()

    def read_on(self) -> None:
        offset = self.writer.next_offset(0, 0, len(self.sent))
        self.table.next_offset = self.table.committed = offset
        if self.sent[offset:]:
            self.table.apply(self.writer, self.sent[offset:])
        self.table.assert_equals_model(self.writer)


@pytest.fixture
def filled(new_table: Callable[..., Any]) -> Callable[..., Restored]:
    def make(mode: str = "deletion_vectors") -> Restored:
        restored = Restored(new_table(mode))
        restored.send([(i, {"n": i}) for i in range(20)])
        restored.send([(i, {"n": -i, "s": "late"}) for i in range(0, 20, 3)] + [(1, None), (2, None)])
        restored.send([(i, {"n": 7, "t": 1.5}) for i in range(2, 25)])
        restored.send([(i, None) for i in range(0, 25, 2)])
        return restored

    return make


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("back", [1, 2, 3])
def test_reading_on_after_a_restore_makes_the_table_whole(filled, mode, back):
    """Attacks I2, I5 and I6, with the key index of before on disk: a restored row must not be missed."""
    case = filled(mode)
    case.writer.close()
    version = case.writer.version - back
    then = DeltaTable(case.table.url, version).to_pyarrow_table() if mode == "copy_on_write" else None
    assert case.restore(version) == case.writer.version + 1
    if then is not None:
        key = [("_cdc_key", "ascending")]
        assert DeltaTable(case.table.url).to_pyarrow_table().sort_by(key) == then.sort_by(key)
    case.restart()
    case.restart()


@pytest.mark.parametrize("version", [2, 9, 14])
@pytest.mark.parametrize("running", [False, True])
def test_an_index_that_has_forgotten_dead_rows_is_not_used_for_restored_ones(filled, version, running):
    """Attacks I7: merges of runs drop the rows that are deleted now, and lived then."""
    case = filled()
    for round_ in range(16):
        case.send([(key % 30, {"n": round_}) for key in range(round_ * 7, round_ * 7 + 12)])
    if not running:
        case.writer.close()
    case.restore(version)
    if running:
        case.writer.refresh()
        case.read_on()
    case.restart()


def test_random_restores_and_restarts_equal_the_model(filled, request):
    """Attacks I5: index, vectors and rows of several pasts."""
    seed = request.config.getoption("--hypothesis-seed")
    rng = random.Random(f"{seed}")
    print(f"seed {seed}")
    case = filled()
    for _ in range(12):
        case.send([(rng.randrange(30), rng.choice([None, {"n": rng.random()}])) for _ in range(rng.randrange(1, 12))])
        if rng.random() < 0.5:
            case.writer.close()
        case.restore(rng.randrange(case.writer.version))
        case.restart()


def test_a_writer_that_knew_the_table_of_before_is_fenced(filled):
    """Attacks I4: the command refuses while a writer runs, but one may start in between."""
    case = filled()
    case.restore(1)
    zombie, case.writer = case.writer, case.table.open(case.clock)
    batch = case.table.encode(zombie, case.table.batch([(1, {"n": 99})]))
    with pytest.raises(Fenced):
        zombie.commit(batch)
    zombie.reload()
    case.sent.append((1, {"n": 99}))
    case.writer = zombie
    case.read_on()


def test_schema_goes_back_and_what_people_set_stays(filled):
    case = filled()
    DeltaTable(case.table.url).alter.set_table_properties({"delta.logRetentionDuration": "interval 90 days"})
    plan = case.restoring().plan(0, lambda _: (0, len(case.sent)))
    assert (plan.columns_out, plan.version, plan.newest) == (["s", "t"], 0, 4)
    assert plan.replayed == {0: OffsetRange(20, len(case.sent))}
    case.restoring().apply(plan)
    metadata = DeltaLog(case.table.store).load().metadata
    assert metadata.configuration["delta.logRetentionDuration"] == "interval 90 days"
    assert metadata.configuration["cdc.schemaVersion"] == "4"
    case.restart()
    *_, restored, again = read_schema_history(case.table.store)
    assert [(change.version, change.operation) for change in (restored, again)] == [(4, "restored"), (5, "widened")]
    assert [(each.change, each.path) for each in restored.fields] == [("removed", "/s"), ("removed", "/t")]
    assert [(each.change, each.path) for each in again.fields] == [("added", "/s"), ("added", "/t")]


@pytest.mark.parametrize("mode", MODES)
def test_a_schema_that_was_altered_by_hand_is_put_back(filled, mode):
    case = filled(mode)
    newest = case.writer.version
    DeltaTable(case.table.url).alter.add_columns([Field("mine", "string")])
    with pytest.raises(ForeignCommit, match=rf"column mine \(string\) was added.*--version {newest} --spec FILE`"):
        case.table.open()
    case.restore(newest)
    case.restart()
    case.send([(1, {"n": 1, "after": True})])
    *_, restored, after = read_schema_history(case.table.store)
    assert (restored.operation, [(f.change, f.path) for f in restored.fields]) == ("restored", [("removed", "/mine")])
    assert (after.operation, [(f.change, f.path) for f in after.fields]) == ("widened", [("added", "/after")])
    assert after.version == restored.version + 1


def test_all_three_kinds_of_txn_go_back(filled):
    case = filled()
    log = DeltaLog(case.table.store)
    before = log.load_version(1).txns
    case.restore(1)
    assert log.load().txns == before


def test_a_version_of_before_a_resync_is_refused(filled):
    """Attacks I2: the old topic's offsets come back with it, and what came after them is gone."""
    case = filled()
    log = DeltaLog(case.table.store)
    then = [Action(txn=Transaction("cdc:topic-id:0", CLOSED)), Action(txn=Transaction("cdc:new-id:0", 0))]
    log.append(4, [Action(commit_info={"operation": "RESYNC", "engineInfo": ENGINE}), *then])
    new_topic = ChangeTopic("p.db.things", "new-id", 1)
    with pytest.raises(ResyncNeeded, match=r"cannot be restored.*made again"):
        case.restore(3, topic=new_topic, held=(0, 0))


def test_txns_that_came_later_say_nothing(filled):
    case = filled()
    log = DeltaLog(case.table.store)
    later = {"cdc-wm:topic-id:0": 1_700_000_000_000, "cdc-swept:topic-id:0": 7, "cdc:topic-id:1": 9, "theirs": 3}
    actions = [Action(txn=Transaction(name, value)) for name, value in later.items()]
    log.append(4, [Action(commit_info={"operation": "CDC UPSERT", "engineInfo": ENGINE}), *actions])
    case.restore(1)
    absent = {"cdc-wm:topic-id:0": -1, "cdc-swept:topic-id:0": -1, "cdc:topic-id:1": 0, "theirs": 3}
    assert log.load().txns == log.load_version(1).txns | absent


def test_a_table_that_another_program_changed_is_put_back(filled):
    case = filled()
    DeltaTable(case.table.url).delete("n > 0")
    with pytest.raises(ForeignCommit, match="--version 3 --spec FILE`"):
        case.table.open()
    DeltaTable(case.table.url).alter.set_table_properties({"delta.logRetentionDuration": "interval 90 days"})
    with pytest.raises(ForeignCommit, match="--version 3 --spec FILE`"):
        case.restore(4)  # that was not what the offsets say either
    case.restore(3)
    case.restart()


def test_plain_values_from_before_a_masking_do_not_come_back(filled):
    """Until the purge has taken the versions of before, they could be restored."""
    case = filled()
    case.writer.set_properties({MASKED: "2", REMASK: "", PURGE: "4"})
    case.writer.set_properties({PURGE: ""})
    case.writer.set_properties({REMASK: "3"})
    newest = case.writer.version
    for version in (0, 3):
        with pytest.raises(Fatal, match=rf"version {version} .* masks of version 2 .* would come back.*--collection"):
            case.restore(version)
    assert DeltaLog(case.table.store).load().version == newest
    case.restore(4)
    configuration = DeltaLog(case.table.store).load().metadata.configuration
    assert [configuration[name] for name in (MASKED, PURGE, REMASK)] == ["2", "", "3"], "what is asked for now"


def test_what_kafka_no_longer_has_is_refused(filled):
    case = filled()
    before = DeltaLog(case.table.store).load().version
    with pytest.raises(
        ResyncNeeded, match=r"cannot be restored.*dropped everything before 30.*resync p --collection things"
    ):
        case.restore(0, held=(30, len(case.sent)))
    with pytest.raises(ResyncNeeded, match=r"cannot be restored.*made again"):
        case.restore(0, topic=ChangeTopic("p.db.things", "another-id", 1))
    with pytest.raises(ResyncNeeded, match=r"cannot be restored.*lost records"):
        case.restore(2, held=(0, len(case.sent) - 1))
    assert DeltaLog(case.table.store).load().version == before
    case.restore(2, held=(30, len(case.sent)))
    case.restart()


def test_missing_files_are_named_before_anything_is_written(filled):
    case = filled()
    snapshot = DeltaLog(case.table.store).load_version(1)
    vector = next(vector_location(f.deletion_vector)[0] for f in snapshot.files.values() if f.deletion_vector)
    obstore.delete(case.table.store, vector)
    with pytest.raises(Fatal, match=rf"1 of the 3 files of version 1 no longer exist \({vector}\)"):
        case.restore(1)
    case.restore(2)


@pytest.mark.parametrize("version", [3, 4, -1])
def test_only_an_earlier_version_can_be_restored(filled, version):
    case = filled()
    with pytest.raises(Fatal, match=f"no earlier version {version}: its newest is 3"):
        case.restore(version)


def test_a_version_that_the_log_no_longer_has_is_refused(filled):
    case = filled()
    DeltaTable(case.table.url).create_checkpoint()
    case.table.store.delete(entry_path(0))
    with pytest.raises(VersionGone, match="version 1 cannot be read"):
        case.restore(1)
    with pytest.raises(VersionGone, match="does not go back"):
        case.restoring().version_at(1_600_000_000_000)


def test_a_time_means_the_newest_version_committed_by_then(filled):
    case = filled()
    at = [case.restoring().version_at(1_700_000_000_000 + 60_000 * minute) for minute in (0, 1, 2, 3, 100)]
    assert at == [0, 1, 2, 3, 3]
    assert case.restoring().version_at(1_700_000_000_000 + 119_999) == 1
    with pytest.raises(VersionGone):
        case.restoring().version_at(1_699_999_999_999)


@pytest.mark.parametrize("takes_effect", [True, False])
def test_a_put_that_timed_out_is_not_doubled(filled, monkeypatch, takes_effect):
    """Attacks I3."""
    case = filled()
    restoring = case.restoring()
    plan = restoring.plan(1, lambda _: (0, len(case.sent)))
    real = obstore.put

    def put(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(obstore, "put", real)
        if takes_effect:
            real(*args, **kwargs)
        raise obstore.exceptions.GenericError("timed out")

    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(Transient):
        restoring.apply(plan)
    assert restoring.apply(plan) == 4
    assert DeltaLog(case.table.store).load().version == 4


def test_a_commit_in_between_is_not_overwritten(filled):
    case = filled()
    restoring = case.restoring()
    plan = restoring.plan(1, lambda _: (0, len(case.sent)))
    case.send([(1, {"n": 5})])
    with pytest.raises(Fatal, match=r"was written meanwhile \(version 4\)"):
        restoring.apply(plan)
    case.restart()
