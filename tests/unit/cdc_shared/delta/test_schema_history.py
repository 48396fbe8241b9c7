"""The records of a schema's changes: chained from the table's property, whatever else lies in their folder."""

from pathlib import Path
from typing import Any

import msgspec
import obstore
import pytest
from obstore.store import LocalStore

from cdc_shared.delta.actions import Action, Metadata, Protocol, TableFormat
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.delta.schema_history import (
    HISTORY_DIR,
    SCHEMA_CHANGE,
    SCHEMA_DIGEST,
    SCHEMA_VERSION,
    SchemaCause,
    SchemaOperation,
    change_schema,
    put_change,
    read_schema_history,
)
from cdc_shared.documents import DocumentSchema, Field, to_delta_schema
from cdc_shared.documents import types as t

pytestmark = pytest.mark.unit

EVENT = EventPosition("p.db.things", 0, 7)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def metadata(*fields: Field, **properties: str) -> Metadata:
    return Metadata("id", TableFormat("parquet", {}), to_delta_schema(DocumentSchema(fields)), [], properties)


def cause(commit_id: str, operation: SchemaOperation = SchemaOperation.WIDENED, **more: Any) -> SchemaCause:
    return SchemaCause(operation, commit_id, 1_700_000_000_000, **more)


def commit(store: LocalStore, after: Metadata, why: SchemaCause) -> Metadata:
    log = DeltaLog(store)
    now = log.load()
    changed, change = change_schema(now.metadata, after, why)
    put_change(store, change)
    log.append(now.version + 1, [Action(protocol=Protocol(1, 2)), Action(meta_data=changed)])
    return changed


def test_each_change_follows_the_one_before(store):
    assert read_schema_history(store) == []
    commit(store, metadata(Field("a", t.LONG)), cause("c1", SchemaOperation.CREATED, shown_by={"/a": EVENT}))
    commit(
        store, metadata(Field("a", t.LONG), Field("b", t.STRING)), cause("c2", rules_version=3, shown_by={"/b": EVENT})
    )
    last = commit(store, metadata(Field("a", t.DOUBLE), Field("b", t.STRING)), cause("c3", SchemaOperation.PROMOTED))

    first, second, third = read_schema_history(store)
    assert [(c.version, c.operation, c.commit_id, c.rules_version) for c in (first, second, third)] == [
        (1, "created", "c1", 0),
        (2, "widened", "c2", 3),
        (3, "promoted", "c3", 0),
    ]
    assert [(c.change, c.path, c.type, c.event) for c in (*first.fields, *second.fields)] == [
        ("added", "/a", "long", EVENT),
        ("added", "/b", "string", EVENT),
    ]
    assert [(c.change, c.path, c.was, c.type, c.event) for c in third.fields] == [
        ("retyped", "/a", "long", "double", None)
    ]
    assert (first.previous, second.previous, third.previous) == (None, first.name, second.name)
    assert third.schema == last.schema_string
    assert last.configuration[SCHEMA_VERSION] == "3"


def test_a_record_whose_commit_failed_is_in_no_history(store):
    created = commit(store, metadata(Field("a", t.LONG)), cause("c1", SchemaOperation.CREATED))
    _, lost = change_schema(created, metadata(Field("x", t.LONG)), cause("never committed"))
    put_change(store, lost)
    commit(store, metadata(Field("a", t.LONG), Field("b", t.LONG)), cause("c2"))
    assert [change.commit_id for change in read_schema_history(store)] == ["c1", "c2"]
    names = sorted(each["path"] for page in obstore.list(store, HISTORY_DIR) for each in page)
    assert [name.rpartition("-")[2] for name in names] == ["c1.json", "c2.json", "never committed.json"]


def test_an_attempt_that_is_repeated_puts_its_record_once(store):
    after = metadata(Field("a", t.LONG))
    for at_ms in (1, 2):
        put_change(store, change_schema(None, after, SchemaCause(SchemaOperation.CREATED, "c1", at_ms))[1])
    (page,) = obstore.list(store, HISTORY_DIR)
    assert len(page) == 1
    assert msgspec.json.decode(bytes(obstore.get(store, page[0]["path"]).bytes()))["at_ms"] == 1


def test_versions_never_go_back(store):
    commit(store, metadata(Field("a", t.LONG)), cause("c1", SchemaOperation.CREATED))
    then = DeltaLog(store).load().metadata
    commit(store, metadata(Field("a", t.LONG), Field("b", t.LONG)), cause("c2"))
    assert then is not None
    restored = commit(store, then, cause("c3", SchemaOperation.RESTORED))
    assert restored.configuration[SCHEMA_VERSION] == "3"
    last = read_schema_history(store)[-1]
    assert [(change.change, change.path) for change in last.fields] == [("removed", "/b")]


def test_a_history_goes_back_as_far_as_its_records_are_there(store):
    for number in range(1, 5):
        fields = [Field(f"f{n}", t.LONG) for n in range(number)]
        commit(store, metadata(*fields), cause(f"c{number}"))
    second = read_schema_history(store)[1]
    obstore.delete(store, f"{HISTORY_DIR}/{second.name}.json")
    left = read_schema_history(store)
    assert [change.version for change in left] == [3, 4]
    assert left[0].previous == second.name


def test_a_table_from_before_histories_begins_one_with_its_next_change(store):
    log = DeltaLog(store)
    log.append(0, [Action(protocol=Protocol(1, 2)), Action(meta_data=metadata(Field("a", t.LONG)))])
    assert read_schema_history(store) == []
    after = metadata(Field("a", t.LONG), Field("b", t.LONG), **{SCHEMA_VERSION: "6"})
    changed = commit(store, after, cause("c7"))
    (change,) = read_schema_history(store)
    assert (change.version, change.previous, [each.path for each in change.fields]) == (7, None, ["/b"])
    assert changed.configuration[SCHEMA_CHANGE] == change.name == "0000000007-c7"
    assert len(changed.configuration[SCHEMA_DIGEST]) == 32
