"""Masks for rows that were written before them."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry
from waiting import wait_until

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import Fenced
from cdc_shared.delta.schema_history import SchemaOperation, read_schema_history
from cdc_shared.delta.table_metadata import MASKED, masked_by
from cdc_shared.documents import canonical_row
from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import canonical_document
from cdc_shared.documents.extended_json import parse_document
from cdc_shared.documents.fitting import fit
from cdc_shared.errors import Fatal
from cdc_shared.metrics.prometheus_metrics import WriterMetrics
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.consumer.event_handler import read_events
from delta_writer.maintenance import column_changes, column_rewrite, mask_watch
from delta_writer.maintenance.chore import Maintenance
from delta_writer.maintenance.column_changes import ColumnChanges
from delta_writer.maintenance.column_rewrite import ColumnRewrite
from delta_writer.maintenance.mask_watch import MaskSource, MaskWatch
from delta_writer.maintenance.policy import MB, MaintenancePolicy
from delta_writer.maintenance.promotion import type_at
from delta_writer.maintenance.remask import (
    PURGE,
    REMASK,
    NotMaskable,
    Remasking,
    made_by,
    missing_masks,
)
from delta_writer.maintenance.remask_command import remask as remask_command
from delta_writer.maintenance.retention import Retention
from delta_writer.maintenance.worker import MaintenanceWorker
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.writer.schema_cache import SchemaCache
from delta_writer.writer.schema_manager import SchemaManager
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table

pytestmark = pytest.mark.unit

SECRET = b"k" * 32


@pytest.fixture
def worker():
    worker = MaintenanceWorker()
    yield worker
    worker.close()


def secrets(_):
    return SECRET


def quality(version, *rules):
    return QualitySpec.model_validate({"version": version, "transformation": list(rules)})


HASH_EMAIL = {"rule": "hash", "path": "/email", "key": "env:K"}
PARTIAL_PHONE = {"rule": "partial", "path": "/phone", "keep_last": 2}
RENAME = {"rule": "rename", "path": "/mail", "to": "email"}
NONE, ONE, BOTH = quality(0), quality(1, HASH_EMAIL), quality(2, HASH_EMAIL, PARTIAL_PHONE)


def masked(quality, document):
    """What the rules make of a document."""
    rules = Rules.compile(quality, "things", secrets)
    return rules.transform_document(parse_document(json.dumps(document)))


def put(table, writer, rules, changes):
    """Commit documents as these rules make them, as the pipeline does."""
    compiled = Rules.compile(rules, "things", secrets)
    batch = table.batch(changes)
    decoded = decode_events(read_events(batch).events, writer.schema)
    source = replace(decoded, rules_version=rules.version)
    if compiled.transforms:
        source = replace(source, decoded=compiled.transform(decoded.decoded, decoded.texts).decoded)
    source = replace(source, decoded=fit(source.decoded, writer.schema))
    writer.commit(encode_batch(source, writer.schema))
    table.committed = batch.ranges[0].end


def remask(writer, target, versions):
    files = writer.snapshot.files.values()
    missing = missing_masks("things", target, versions, made_by(writer.location.store, files))
    writer.set_properties({REMASK: str(target.version)})
    rewrite = ColumnRewrite(writer, Remasking(missing, "things", secrets), 1, 1e9)
    while (job := rewrite.step()) is not None:
        job(None)
    rewrite.close()


def check(table, writer, rules):
    rows = table.rows()
    found = sorted(canonical_row(row, writer.schema, row["_cdc_rescued"]) for row in rows)
    assert found == sorted(canonical_document(masked(rules, each)) for each in table.model.values())
    assert {row["_cdc_rules_version"] for row in rows} == {rules.version}
    return rows


DOCUMENTS = [
    {"email": "a@x.io", "phone": 12345},
    {"email": "b@x.io", "phone": "0049 12"},
    {"email": None, "phone": 5},
    {"email": {"work": "c@x.io"}, "phone": [1, "2"]},
    {"other": 1},
    {"email": 7, "phone": True},
]


def test_rows_get_the_masks_that_they_lack(new_table):
    """Columns, what was rescued of them, and types: a long column becomes one of texts."""
    table = new_table()
    writer = table.open()
    put(table, writer, NONE, [(i, each) for i, each in enumerate(DOCUMENTS)])
    put(table, writer, ONE, [(10 + i, each) for i, each in enumerate(DOCUMENTS)])
    put(table, writer, BOTH, [(20 + i, each) for i, each in enumerate(DOCUMENTS)])
    assert type_at(writer.schema, "/phone") == t.LONG
    assert any("phone" in (row["_cdc_rescued"] or "") for row in table.rows())
    remask(writer, BOTH, {1: ONE, 2: BOTH})
    rows = check(table, writer, BOTH)
    assert type_at(writer.schema, "/phone") == t.STRING
    assert "x.io" not in json.dumps(rows, default=str)
    configuration = writer.snapshot.metadata.configuration
    assert (configuration[REMASK], configuration[MASKED]) == ("", "2")
    assert configuration[PURGE] == str(writer.version)
    change = read_schema_history(table.store)[-1]
    assert (change.operation, change.rules_version) == (SchemaOperation.MASKED, 2)
    assert [(each.change, each.path, each.was, each.type) for each in change.fields] == [
        ("retyped", "/phone", "long", "string")
    ]
    put(table, writer, BOTH, [(1, {"email": "n@x.io", "phone": 99}), (40, {"phone": "7"})])
    check(table, writer, BOTH)


def test_masks_that_change_no_column_leave_the_schema_at_its_version(new_table):
    table = new_table()
    writer = table.open()
    put(table, writer, NONE, [(0, {"email": "a@x.io"})])
    remask(writer, ONE, {1: ONE})
    assert masked_by(writer.snapshot.metadata) == 1
    assert [change.operation for change in read_schema_history(table.store)] == [SchemaOperation.CREATED]


def test_nested_fields_and_arrays(new_table):
    rules = quality(
        3,
        {"rule": "redact", "path": "/people/*/name"},
        {"rule": "email", "path": "/contact/mail", "key": "env:K"},
        {"rule": "truncate_date", "path": "/born", "to": "year"},
        {"rule": "hash", "path": "/tags/*", "key": "env:K"},
    )
    table = new_table()
    writer = table.open()
    documents = [
        {"people": [{"name": "Ann", "age": 3}, {"name": None}], "contact": {"mail": "a@x.io", "city": "Rome"}},
        {"people": {"name": "Bob"}, "born": {"$date": 1_000_000_000_000}, "tags": ["a", "b", None]},
        {"contact": "none", "tags": "lonely", "born": "long ago"},
    ]
    put(table, writer, NONE, list(enumerate(documents)))
    remask(writer, rules, {3: rules})
    check(table, writer, rules)


def test_values_that_end_a_masks_path_are_masked(new_table):
    """In columns of texts and of numbers, in structs, arrays, and in what was rescued."""
    rules = quality(
        4,
        {"rule": "partial", "path": "/cards/*/number", "keep_last": 4},
        {"rule": "hash", "path": "/owner/id/number", "key": "env:K"},
        {"rule": "redact", "path": "/mixed/number"},
    )
    documents = [
        {"cards": "4111-9999", "owner": {"id": 4111}, "mixed": {"number": "4111", "other": 5}},
        {"cards": [{"number": "4111-9999"}], "owner": {"id": {"number": "4111"}}, "mixed": 4111},
        {"cards": {"number": 4111, "other": 5}, "owner": "4111", "mixed": ["4111", {"number": 4111}]},
        {"cards": None, "owner": {"other": 5}},
    ]
    table = new_table()
    writer = table.open()
    put(table, writer, NONE, list(enumerate(documents)))
    assert type_at(writer.schema, "/owner/id") == t.LONG
    remask(writer, rules, {4: rules})
    rows = check(table, writer, rules)
    assert type_at(writer.schema, "/owner/id") == t.STRING
    assert "4111" not in json.dumps([{**row, "_cdc_key": ""} for row in rows], default=str)
    put(table, writer, rules, [(i + 10, each) for i, each in enumerate(documents)])
    check(table, writer, rules)


@pytest.mark.parametrize(
    ("old", "new", "lacking"),
    [
        ("/cards", "/cards/number", []),
        ("/cards", "/cards/*", []),
        ("/cards/*", "/cards/number", []),
        ("/cards/*", "/cards", ["/cards"]),
        ("/cards/number", "/cards", ["/cards"]),
        ("/cards", "/cards_number", ["/cards_number"]),
    ],
)
def test_what_lies_in_a_masked_field_is_masked_already(old, new, lacking):
    """Else the mask of the member would be for the text that the mask of the whole left."""
    before, after = (quality(i, {"rule": "redact", "path": path}) for i, path in enumerate((old, new), 1))
    missing = missing_masks("things", after, {1: before, 2: after}, {1})
    assert [rule.path for rule in missing.by_version[1]] == lacking


def test_a_mask_of_a_flattened_member_is_not_one_of_the_whole():
    flatten = {"rule": "flatten", "path": "/o"}
    before = quality(1, flatten, {"rule": "redact", "path": "/o_zip"})
    after = quality(2, {"rule": "redact", "path": "/o/city"})
    with pytest.raises(NotMaskable, match="other rules than masks"):
        missing_masks("things", after, {1: before, 2: after}, {1})


def test_renamed_fields_are_found(new_table):
    old, new = quality(1, RENAME), quality(2, RENAME, HASH_EMAIL)
    table = new_table()
    writer = table.open()
    put(table, writer, old, [(0, {"mail": "a@x.io"}), (1, {"email": "b@x.io"})])
    remask(writer, new, {1: old, 2: new})
    check(table, writer, new)


def test_what_is_masked_already_is_not_masked_again():
    partial = quality(1, {"rule": "partial", "path": "/email"})
    missing = missing_masks("things", BOTH, {1: partial, 2: BOTH}, {1})
    assert [rule.path for rule in missing.by_version[1]] == ["/phone"]
    assert missing.paths == ["/email", "/phone"]  # rows of version 0 would lack both


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        (quality(1, RENAME), quality(2, HASH_EMAIL), "other rules than masks"),
        (NONE, quality(2, {"rule": "hash", "path": "/_id", "key": "env:K"}), "/_id"),
        (
            quality(1, {"rule": "convert", "path": "/email", "to": "string"}),
            quality(2, {"rule": "convert", "path": "/email", "to": "string"}, HASH_EMAIL),
            "convert of /email",
        ),
    ],
)
def test_where_stored_rows_do_not_tell_enough_it_is_refused(old, new, remedy):
    with pytest.raises(NotMaskable, match=remedy) as refusal:
        missing_masks("things", new, {1: old, 2: new}, {old.version})
    assert "resync" in str(refusal.value)


def test_versions_that_made_no_rows_are_no_reason_to_refuse():
    rename, both = quality(1, RENAME), quality(2, HASH_EMAIL)
    missing = missing_masks("things", both, {1: rename, 2: both}, {0})
    assert set(missing.by_version) == {0}
    with pytest.raises(NotMaskable, match="no longer has"):
        missing_masks("things", both, {2: both}, {1})


def test_which_versions_made_rows_that_live(new_table):
    table = new_table()
    writer = table.open()

    def versions():
        return made_by(table.store, writer.snapshot.files.values())

    assert versions() == set()
    put(table, writer, NONE, [(0, {"n": 1}), (1, {"n": 1})])
    assert versions() == {0}
    put(table, writer, BOTH, [(1, {"n": 1}), (2, {"n": 2})])
    assert versions() == {0, 2}
    put(table, writer, ONE, [(0, {"n": 1}), (2, {"n": 2})])
    assert versions() == {1, 2}, "the rows of version 0 are superseded"


def plain_values_left(root):
    """What of the documents' values is anywhere in files under `root`, in the log and its checkpoints too."""
    found = []
    for path in sorted(each for each in Path(root).rglob("*") if each.is_file()):
        rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_text(errors="replace")
        found += [(path.name, value) for value in ("@x.io", "12345", "0049 12") if value in str(rows)]
    return found


class Plain:
    """A table with plain rows, rules with masks in force, and the chore that knows of it."""

    def __init__(self, new_table, worker):
        table = new_table()
        self.spec = PipelineSpec.model_validate(
            {
                "name": "p",
                "source": {"connection": "env:X", "database": "db"},
                "sink": {"root": table.url},
                "quality": BOTH.model_dump(),
            }
        )
        url = f"{table.url}/p/db/things"
        self.table = replace(table, url=url, store=open_store(url, ObjectStoreSettings()))
        self.writer = self.table.open()
        put(self.table, self.writer, NONE, [(i, each) for i, each in enumerate(DOCUMENTS)])
        put(self.table, self.writer, NONE, [(0, {"email": "z@x.io"}), (50, {"phone": 12345})])
        put(self.table, self.writer, BOTH, [(1, {"email": "y@x.io"}), (60, {"phone": 12345})])
        self.versions = {1: ONE, 2: BOTH}
        self.told = {}
        self.chore = Maintenance(
            "p",
            MaintenancePolicy(Retention(30 * 86400.0), 128 * MB, 1.0, 1e9),
            worker,
            WriterMetrics(CollectorRegistry()),
            found=lambda about, texts: self.told.update({about: list(texts)}),
            masks=MaskSource(lambda _: 2, lambda: self.versions, secrets),
        )
        schemas = SchemaManager(self.writer, "things", self.spec.evolution, SchemaCache())
        self._tables = {"t": Table(Collection("db", "things"), Sink("things", self.writer, schemas))}

    def turn_until(self, condition, what):
        def turn():
            self.chore._ask_after = 0.0
            self.chore.turn(self._tables, {("t", 0)})
            return condition()

        wait_until(turn, 60, what, poll_s=0.005)

    def ask(self, dry_run=False, confirm=lambda: None):
        """Give the command; return what it says."""
        said = []
        about = (ObjectStoreSettings(), self.spec, self.versions, None)
        remask_command(*about, said.append, now_ms=1, dry_run=dry_run, confirm=confirm)
        self.writer.refresh()
        return said

    def property(self, name):
        return self.writer.snapshot.metadata.configuration.get(name)


@pytest.fixture
def plain(new_table, worker):
    it = Plain(new_table, worker)
    yield it
    it.chore.close()


def test_what_is_plain_is_told_masked_on_request_and_gone_for_good(plain):
    table, told = plain.table, plain.told
    plain.turn_until(lambda: told.get("masks of db.things"), "it is told")
    assert "plain values of /email, /phone remain" in told["masks of db.things"][0]
    assert "delta-writer remask p --collection things" in told["masks of db.things"][0]
    assert plain_values_left(table.url)
    assert "masks /email, /phone in 3 data files" in plain.ask(dry_run=True)[0]
    assert plain.property(REMASK) is None
    plain.ask()
    plain.turn_until(lambda: plain.property(PURGE) == "", "it is masked, and what is older deleted")
    check(table, plain.writer, BOTH)
    assert plain_values_left(table.url) == []
    assert DeltaLog(table.store).readable_versions().start > 3
    plain.turn_until(lambda: not told["masks of db.things"], "nothing is told any more")
    assert told["columns of db.things"] == []
    put(table, plain.writer, BOTH, [(1, {"email": "n@x.io"}), (2, None)])
    check(table, plain.writer, BOTH)
    check(table, table.open(), BOTH)


def test_a_batch_of_rules_without_the_masks_comes_too_late(plain):
    """Of a writer that has not heard of the new rules yet."""
    plain.ask()
    plain.turn_until(lambda: masked_by(plain.writer.snapshot.metadata), "it is masked")
    with pytest.raises(Fenced, match="masks of version 2"):
        put(plain.table, plain.writer, ONE, [(1, {"phone": "5"})])


@pytest.mark.parametrize("where", ["worker", "commit"])
def test_rows_that_come_meanwhile_and_cannot_be_masked_are_a_reason_to_refuse(plain, monkeypatch, where):
    """Of a writer that has not heard of the new rules yet, whose own do other things than mask."""
    plain.versions[1] = quality(1, RENAME)
    monkeypatch.setattr(column_changes, "AFTER_FAILURE_S", 0.01)
    if where == "worker":  # there is more to rewrite than a commit does itself
        monkeypatch.setattr(column_rewrite, "MAX_LATE_ROWS", 0)
    begin, begun = ColumnChanges._begin, []

    def comes_meanwhile(changes, change):
        begin(changes, change)
        begun.append(change)
        if len(begun) == 1:
            put(plain.table, plain.writer, plain.versions[1], [(0, {"mail": "late@x.io"})])

    monkeypatch.setattr(ColumnChanges, "_begin", comes_meanwhile)
    plain.ask()
    told = plain.told
    plain.turn_until(lambda: "cannot be masked" in str(told.get("masks of db.things")), "it is refused")
    assert "other rules than masks" in told["masks of db.things"][0]
    assert len(begun) == 1, "it is looked at anew before it is begun again"
    put(plain.table, plain.writer, BOTH, [(0, {"email": "n@x.io"})])  # the row is gone: what is asked for can be done
    monkeypatch.setattr(mask_watch, "LOOK_AFTER_REFUSAL_S", 0)
    plain.turn_until(lambda: plain.property(MASKED) == "2", "it is masked")
    check(plain.table, plain.writer, BOTH)


def test_deleting_what_is_older_goes_on_after_a_restart(plain):
    plain.ask()
    plain.turn_until(lambda: plain.property(PURGE), "it is masked")
    plain.chore.close()
    assert plain_values_left(plain.table.url)
    plain.turn_until(lambda: plain.property(PURGE) == "", "what is older is deleted")
    assert plain_values_left(plain.table.url) == []


def test_tables_that_never_had_plain_values_are_not_complained_of(new_table):
    table = new_table()
    writer = table.open()
    put(table, writer, BOTH, [(0, {"email": "a@x.io"})])
    told = []
    source = MaskSource(lambda _: 2, lambda: {1: ONE, 2: BOTH}, secrets)
    watch = MaskWatch(writer, "p", "things", source, lambda job: job(), told.append)
    watch.turn()
    watch.turn()
    assert told == [None]


def test_what_cannot_be_masked_is_refused_when_it_is_asked_for(plain):
    spec = plain.spec.model_copy(update={"quality": quality(3, RENAME, HASH_EMAIL)})
    about = (ObjectStoreSettings(), spec, {3: spec.quality})
    with pytest.raises(NotMaskable, match="resync"):
        remask_command(*about, "things", print, now_ms=1, dry_run=False, confirm=lambda: None)
    with pytest.raises(Fatal, match=rf"no table of other under {spec.sink.root}/p/db; there are tables of: things"):
        remask_command(*about, "other", print, now_ms=1, dry_run=False, confirm=lambda: None)
    assert plain.property(REMASK) is None


def test_the_command_asks_once_and_only_where_something_is_plain(plain):
    def no():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain.ask(confirm=no)
    assert plain.property(REMASK) is None, "nothing is written before it was confirmed"
    plain.ask()
    newest = plain.writer.version
    again = plain.ask(confirm=no)
    assert "asked for already" in again[0]
    assert "nothing was asked for" in again[1]
    plain.turn_until(lambda: plain.property(PURGE), "it is masked")
    assert "being deleted" in plain.ask(confirm=no)[0]
    plain.turn_until(lambda: plain.property(PURGE) == "", "what is older is deleted")
    for dry_run in (False, True):
        assert "nothing is plain" in plain.ask(dry_run, confirm=no)[0]
    assert newest < plain.writer.version
