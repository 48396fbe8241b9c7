"""What a rejected document leaves of its row, by reason, policy and kind of change."""

import json

import pytest
from fake_kafka import SOURCE
from local_pipeline import LocalPipeline

from cdc_shared.delta.log import DeltaLog
from cdc_shared.errors import Fatal
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.snapshots.doomed_rows import SweepRule
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.deletion_vectors import DeletionVectors

pytestmark = pytest.mark.unit

MALFORMED, OVERSIZED, INVALID_KEY, INVALID_EVENT = "malformed", "oversized", "key", "event"


def pipeline(tmp_path, *, mode="deletion_vectors", history=False, **dirty_data):
    run = LocalPipeline(tmp_path, mode=mode, history=history)
    quality = QualitySpec.model_validate({"dirty_data": {"max_document_size": 1024, **dirty_data}})
    run.spec = run.spec.model_copy(update={"quality": quality})
    return run


def send_bad(run, key, op, what):
    """A change of the document `key` whose document is rejected."""
    after = {MALFORMED: "[]", OVERSIZED: json.dumps({"_id": int(key), "text": "x" * 2000})}[what]
    run.kafka.send_raw(
        json.dumps({"id": key}).encode(), json.dumps({"op": op, "after": after, "source": SOURCE}).encode()
    )


def rows(run):
    return {row["_id"]: row["n"] for row in run.rows().select(["_id", "n"]).to_pylist()}


def places(run):
    return dict(zip(*(run.rows()[name].to_pylist() for name in ("_id", "_cdc_offset")), strict=True))


@pytest.mark.parametrize("what", [MALFORMED, OVERSIZED])
@pytest.mark.parametrize("max_rows", [1, 100])
@pytest.mark.parametrize(("rejected_updates", "left"), [("keep", {1: 10, 2: 2}), ("delete", {2: 2})])
def test_a_rejected_update_keeps_the_last_valid_row_or_deletes_it(tmp_path, what, max_rows, rejected_updates, left):
    run = pipeline(tmp_path, history=True, rejected_updates=rejected_updates)
    run.max_rows = run.kafka.records_a_poll = max_rows
    run.kafka.send("1", "c", {"_id": 1, "n": 1})
    run.kafka.send("2", "c", {"_id": 2, "n": 2})
    run.kafka.send("1", "u", {"_id": 1, "n": 10})
    send_bad(run, "1", "u", what)
    send_bad(run, "3", "c", what)
    run.go()
    assert rows(run) == left
    history = run.rows("things__changes", "_cdc_offset")
    assert history["_cdc_offset"].to_pylist() == [0, 1, 2]
    assert [letter.offset for letter in run.letters] == [3, 4]
    run.kafka.send("1", "u", {"_id": 1, "n": 11})
    run.kafka.send("3", "u", {"_id": 3, "n": 3})
    run.go()
    assert rows(run) == {1: 11, 2: 2, 3: 3}


def test_what_the_history_has_and_newer_rules_reject_is_a_letter(tmp_path, monkeypatch):
    """The process died between the two commits: the event would be in no table of today, and in no letter."""
    run = pipeline(tmp_path, history=True)
    run.kafka.send("1", "c", {"_id": 1})

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(DeletionVectorWriter, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            run.go()
    quality = QualitySpec.model_validate({"version": 1, "validation": [{"rule": "required", "path": "/n"}]})
    run.spec = run.spec.model_copy(update={"quality": quality})
    for _ in range(2):
        run.kafka.send("2", "c", {"_id": 2, "n": 2})
        run.go()
        assert [letter.offset for letter in run.letters] == [0]
    assert rows(run) == {2: 2}


@pytest.mark.parametrize("policy", ["dlq", "skip", "fail"])
@pytest.mark.parametrize("what", [MALFORMED, OVERSIZED, INVALID_KEY, INVALID_EVENT])
def test_the_policy_says_what_becomes_of_a_bad_record(tmp_path, what, policy):
    run = pipeline(tmp_path, policy=policy)
    run.kafka.records_a_poll = 1
    run.kafka.send("1", "c", {"_id": 1, "n": 1})
    if what == INVALID_KEY:
        run.kafka.send_raw(b"no key", json.dumps({"op": "c", "after": "{}", "source": SOURCE}).encode())
    elif what == INVALID_EVENT:
        run.kafka.send_raw(b'{"id": "7"}', b"{")
    else:
        send_bad(run, "7", "c", what)
    run.kafka.send("2", "c", {"_id": 2, "n": 2})
    if policy == "fail":
        for _ in range(2):  # nothing is skipped by starting again
            with pytest.raises(Fatal, match=r"record p\.db\.things:0:1 was rejected and the policy is fail"):
                run.go()
        assert rows(run) == {1: 1}
        assert run.letters == []
        return
    run.go()
    assert rows(run) == {1: 1, 2: 2}
    assert [letter.offset for letter in run.letters] == ([1] if policy == "dlq" else [])


@pytest.mark.parametrize("mode", ["deletion_vectors", "copy_on_write"])
@pytest.mark.parametrize("max_rows", [1, 3, 100])
def test_a_row_outlasts_the_sweep_of_a_snapshot_that_read_its_document_and_had_it_rejected(tmp_path, mode, max_rows):
    """Attacks I9: it is the last valid row of a document that exists, however the batches lie."""
    run = pipeline(tmp_path, mode=mode)
    for i in (1, 2, 3, 4):
        run.kafka.send(str(i), "c", {"_id": i, "n": i, "sub": {"a": i}})
    run.go()
    run.max_rows = run.kafka.records_a_poll = max_rows
    run.kafka.send("5", "c", {"_id": 5, "n": 5})
    begin = 5
    run.kafka.send("1", "r", {"_id": 1, "n": 10, "sub": {"a": 1, "b": "new"}})
    send_bad(run, "2", "r", OVERSIZED)
    send_bad(run, "5", "r", MALFORMED)
    send_bad(run, "6", "r", MALFORMED)
    send_bad(run, "3", "u", OVERSIZED)
    send_bad(run, "4", "r", OVERSIZED)
    run.kafka.send("4", "d", None)
    run.go()
    assert rows(run) == {1: 10, 2: 2, 3: 3, 5: 5}
    assert places(run) == {1: 5, 2: 6, 3: 2, 5: 7}
    assert [row["sub"] for row in run.rows().to_pylist()][1] == {"a": 2, "b": None}
    assert swept(run, begin) == {3}
    run.kafka.send("2", "u", {"_id": 2, "n": 20})
    run.kafka.send("5", "d", None)
    run.go()
    assert rows(run) == {1: 10, 2: 20, 3: 3}


def swept(run, begin):
    """The rows that a sweep would delete, after a snapshot whose first record is at `begin`."""
    store = open_store(f"{run.root}/p/db/things", ObjectStoreSettings())
    snapshot = DeltaLog(store).load()
    vectors = DeletionVectors(store, lambda: 0.0)
    rule = SweepRule(0, {0: begin})
    doomed = sum(len(rule.rows_of(file, store) - vectors.of(file)) for file in snapshot.files.values())
    found = {row["_id"] for row in run.rows().to_pylist() if row["_cdc_offset"] < begin}
    assert doomed == len(found)
    return found
