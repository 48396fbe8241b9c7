"""A pipeline with rules: what is validated, transformed and masked, in both tables, and other rules while it runs."""

import json
from pathlib import Path

import pytest
from fake_kafka import TOPIC, FakeConsumer
from local_pipeline import LocalPipeline

import delta_writer.pipeline as pipeline_module
from cdc_shared.errors import Fatal
from cdc_shared.models.data_quality import QualitySpec

pytestmark = pytest.mark.unit

MARKER = "hunter2-hunter2-hunter2"
KEY = {"env:MASK_KEY": b"0123456789abcdef0123456789abcdef"}


def quality(version=1, validation=(), transformation=(), **dirty_data):
    return QualitySpec.model_validate(
        {
            "version": version,
            "dirty_data": dirty_data,
            "validation": list(validation),
            "transformation": list(transformation),
        }
    )


def pipeline(tmp_path, spec, **sink):
    run = LocalPipeline(tmp_path, **sink)
    run.secrets = dict(KEY)
    run.spec = run.spec.model_copy(update={"quality": spec})
    return run


def table(run, *columns, name="things"):
    return [tuple(row.values()) for row in run.rows(name).select(list(columns)).to_pylist()]


def commit_info(run, name="things"):
    """What each commit says of its rules."""
    log = Path(run.root) / "p" / "db" / name / "_delta_log"
    entries = [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]
    infos = [entry["commitInfo"] for entry in entries if "commitInfo" in entry]
    return [(info.get("cdcRulesVersion"), info.get("cdcSchemaVersion")) for info in infos if info.get("cdcRanges")]


def test_a_document_that_fails_a_rule_is_rejected_as_any_other_and_counted(tmp_path):
    spec = quality(
        validation=[
            {"rule": "required", "path": "/name", "on_failure": "skip"},
            {"rule": "range", "path": "/age", "min": 0, "max": 150, "name": "age"},
        ]
    )
    run = pipeline(tmp_path, spec)
    run.kafka.send("1", "c", {"_id": 1, "name": "a", "age": 1})
    run.kafka.send("2", "c", {"_id": 2, "age": 1})
    run.kafka.send("1", "u", {"_id": 1, "name": "a", "age": 1000})
    run.kafka.send("3", "c", {"_id": 3, "name": "c", "age": MARKER})
    run.kafka.send("1", "u", {"_id": 1, "name": "b", "age": 2})
    run.kafka.send("1", "u", {"_id": 1, "name": "z", "age": -1})
    run.go()
    assert table(run, "_id", "name", "age", "_cdc_rules_version") == [(1, "b", 2, 1)]
    assert [(letter.offset, letter.rejection.rule) for letter in run.letters] == [(2, "age"), (3, "age"), (5, "age")]
    assert MARKER not in "".join(letter.rejection.message for letter in run.letters)
    failures = {
        sample.labels["rule"]: sample.value
        for family in run.data_quality.validation_failures.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert failures == {"age": 3, "required:/name": 1}


def test_a_rule_that_says_fail_stops_before_anything_of_the_batch_is_written(tmp_path):
    spec = quality(validation=[{"rule": "required", "path": "/name", "on_failure": "fail"}])
    run = pipeline(tmp_path, spec)
    run.kafka.send("1", "c", {"_id": 1, "name": "a"})
    run.kafka.send("2", "c", {"_id": 2})
    with pytest.raises(Fatal, match=r"things:0:1 was rejected .*policy is fail: .*required:/name.*change the rule"):
        run.go()
    assert not (Path(run.root) / "p" / "db" / "things" / "_delta_log").exists()
    run.spec = run.spec.model_copy(update={"quality": quality(2)})
    run.go()
    assert table(run, "_id", "name", "_cdc_rules_version") == [(1, "a", 2), (2, None, 2)]


@pytest.mark.parametrize("mode", ["deletion_vectors", "copy_on_write"])
def test_rows_keys_and_history_hold_only_what_the_rules_made(tmp_path, mode):
    """Attacks I2 and I6 with masked keys: an update and a delete find the row of the masked key."""
    hashed = {"rule": "hash", "path": "/_id", "key": "env:MASK_KEY"}
    spec = quality(
        transformation=[
            hashed,
            {"rule": "redact", "path": "/secret"},
            {"rule": "rename", "path": "/n", "to": "number"},
            {"rule": "drop", "path": "/internal"},
            {"rule": "convert", "path": "/count", "to": "long"},
        ]
    )
    run = pipeline(tmp_path, spec, history=True, mode=mode)
    first, second = f"{MARKER}-1", f"{MARKER}-2"
    for key, n, op in ((first, 1, "c"), (second, 2, "c"), (first, 3, "u")):
        secret = {"deep": [MARKER]} if n == 2 else MARKER
        document = {"_id": key, "n": n, "secret": secret, "internal": MARKER, "count": "7"}
        run.kafka.send(json.dumps(key), op, document)
    run.kafka.send(json.dumps(second), "d", None)
    run.go()
    ((identity, key, number, secret, count),) = table(run, "_id", "_cdc_key", "number", "secret", "count")
    assert (number, secret, count) == (3, "***", 7)
    assert len(identity) == 64
    assert identity in key
    assert {name for name in run.rows().column_names if not name.startswith("_cdc")} == {
        "_id", "number", "secret", "count",
    }  # fmt: skip
    history = table(run, "_cdc_op", "number", "_cdc_rules_version", name="things__changes")
    assert sorted(history, key=str) == [("c", 1, 1), ("c", 2, 1), ("d", None, 1), ("u", 3, 1)]
    assert len(set(table(run, "_cdc_key", name="things__changes"))) == 2
    found = [path for path in Path(run.root).rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    assert found == []
    for name in ("things", "things__changes"):
        assert MARKER not in str(run.rows(name).to_pylist())
    assert run.cache.exists() is (mode == "deletion_vectors")
    assert not any(MARKER.encode() in path.read_bytes() for path in run.cache.rglob("*") if path.is_file())
    assert {each[0] for each in commit_info(run, "things__changes")} == {1}


def test_both_tables_take_the_same_prepared_documents(tmp_path, monkeypatch):
    run = pipeline(tmp_path, quality(transformation=[{"rule": "drop", "path": "/a"}]), history=True)
    real, calls = pipeline_module.decode_events, []
    monkeypatch.setattr(pipeline_module, "decode_events", lambda *args: calls.append(1) or real(*args))
    run.kafka.send("1", "c", {"_id": 1, "a": None, "b": {"c": 1}})
    run.go()
    run.kafka.send("1", "u", {"_id": 1, "a": 1, "b": {"c": 2}})
    run.go()
    assert len(calls) == 2
    assert table(run, "_id", "b") == [(1, {"c": 2})]


def test_a_value_that_the_column_does_not_hold_after_the_rules_is_rescued_as_they_left_it(tmp_path):
    run = pipeline(tmp_path, quality(0))
    run.kafka.send("1", "c", {"_id": 1, "age": 7, "mail": "a@b.c"})
    run.go()
    run.spec = run.spec.model_copy(
        update={
            "quality": quality(
                1,
                transformation=[
                    {"rule": "convert", "path": "/age", "to": "string"},
                    {"rule": "redact", "path": "/mail"},
                    {"rule": "constant", "path": "/zone", "value": "eu"},
                ],
            )
        }
    )
    run.kafka.send("2", "c", {"_id": 2, "age": 8, "mail": {"at": MARKER}})
    run.go()
    assert table(run, "_id", "age", "mail", "zone", "_cdc_rules_version") == [
        (1, 7, "a@b.c", None, None),
        (2, None, "***", "eu", 1),
    ]
    assert [json.loads(each[0]) for each in table(run, "_cdc_rescued") if each[0]] == [{"/age": "8"}]
    assert commit_info(run) == [(None, 1), (1, 2)]


@pytest.mark.parametrize("history", [False, True])
def test_other_rules_come_into_force_with_the_next_batch_and_the_pipeline_goes_on(tmp_path, monkeypatch, history):
    first = quality(1, transformation=[{"rule": "redact", "path": "/name", "text": "one"}])
    run = pipeline(tmp_path, first, history=history)
    second = quality(2, transformation=[{"rule": "redact", "path": "/name", "text": "two"}])
    unusable = quality(3, transformation=[{"rule": "hash", "path": "/name", "key": "env:NOT_THERE"}])
    fourth = quality(4, validation=[{"rule": "required", "path": "/name"}])
    editions = iter([None, second, None, unusable, None, fourth])
    findings = []
    real = FakeConsumer.poll

    def poll(self, timeout_s):
        edition = next(editions, None)
        if edition is not None:
            run.quality.replace(edition)
            findings.append(run.observer.status.findings)
        return real(self, timeout_s)

    monkeypatch.setattr(FakeConsumer, "poll", poll)
    run.kafka.records_a_poll = 1
    for key in range(1, 7):
        run.kafka.send(str(key), "c", {"_id": key, "name": MARKER})
    run.kafka.send("7", "c", {"_id": 7})
    run.go()
    rows = [(1, "one", 1), (2, "two", 2), (3, "two", 2), (4, "two", 2), (5, "two", 2), (6, MARKER, 4)]
    for name in ("things", "things__changes")[: 1 + history]:
        assert table(run, "_id", "name", "_cdc_rules_version", name=name) == rows
    assert [letter.offset for letter in run.letters] == [6]
    assert findings[0] == findings[2] == ()
    assert findings[1][0].startswith("version 3 of the rules is not in force, version 2 stays: ")
    assert "env:NOT_THERE" in findings[1][0]


def test_a_start_with_rules_that_cannot_be_applied_is_refused(tmp_path):
    spec = quality(
        transformation=[{"rule": "hash", "path": "/name", "key": "env:NOT_THERE", "collections": ["elsewhere"]}]
    )
    run = pipeline(tmp_path, spec)
    run.kafka.send("1", "c", {"_id": 1})
    with pytest.raises(Fatal, match="env:NOT_THERE"):
        run.go()
    assert not Path(run.root).exists()


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("begin", [True, False])
def test_a_table_whose_keys_were_made_otherwise_takes_nothing(tmp_path, begin, history):
    """Attacks I5: a second row for every document."""
    plain, hashed = quality(1), quality(1, transformation=[{"rule": "hash", "path": "/_id", "key": "env:MASK_KEY"}])
    run = pipeline(tmp_path, hashed if begin else plain)
    run.kafka.send("1", "c", {"_id": 1, "n": 1})
    run.go()
    run.kafka.send("1", "u", {"_id": 1, "n": 2})
    run.spec = run.spec.model_copy(update={"quality": plain if begin else hashed})
    with pytest.raises(Fatal, match="each document would get a second one"):
        run.go()
    run.spec = run.spec.model_copy(update={"quality": hashed})
    run.secrets = {"env:MASK_KEY": b"another secret of enough length"}
    with pytest.raises(Fatal, match="Put the rule and its secret back"):
        run.go()
    run.secrets = KEY
    run.spec = run.spec.model_copy(
        update={"quality": hashed if begin else plain, "sink": run.spec.sink.model_copy(update={"history": history})}
    )
    run.go()
    assert table(run, "n") == [(2,)]
    if history:
        assert table(run, "_cdc_key", name="things__changes") == table(run, "_cdc_key")


def test_rules_are_for_the_collections_that_they_name(tmp_path):
    spec = quality(
        validation=[{"rule": "required", "path": "/other", "collections": ["others"]}],
        transformation=[
            {"rule": "drop", "path": "/a", "collections": ["others"]},
            {"rule": "drop", "path": "/b", "collections": ["things"]},
        ],
    )
    run = pipeline(tmp_path, spec)
    run.kafka.send("1", "c", {"_id": 1, "a": 1, "b": 1}, topic=TOPIC)
    run.go()
    assert run.letters == []
    assert table(run, "a") == [(1,)]
    assert "b" not in run.rows().column_names
