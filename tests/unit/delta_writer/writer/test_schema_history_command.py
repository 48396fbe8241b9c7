"""What `delta-writer schema-history` says."""

import json
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from cdc_shared.delta.actions import Action, Protocol
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.delta.schema_history import HISTORY_DIR, SchemaCause, SchemaOperation, change_schema, put_change
from cdc_shared.delta.table_metadata import TableIdentity, new_metadata, with_schema
from cdc_shared.documents import DocumentSchema, Field
from cdc_shared.documents import types as t
from cdc_shared.errors import Fatal
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.writer.schema_history_command import schema_history

pytestmark = pytest.mark.unit

VERSIONS: list[tuple[SchemaOperation, list[Field]]] = [
    (SchemaOperation.CREATED, [Field("a", t.LONG)]),
    (SchemaOperation.WIDENED, [Field("a", t.LONG), Field("b", t.Struct((Field("c", t.STRING),)))]),
    (SchemaOperation.PROMOTED, [Field("a", t.DOUBLE), Field("b", t.Struct((Field("c", t.STRING),)))]),
]


@pytest.fixture
def spec(tmp_path: Path) -> PipelineSpec:
    source = {"connection": "env:X", "database": "db"}
    return PipelineSpec.model_validate({"name": "p", "source": source, "sink": {"root": str(tmp_path)}})


def fill(root: Path) -> LocalStore:
    store = LocalStore(root / "p" / "db" / "things", mkdir=True)
    log = DeltaLog(store)
    for version, (operation, fields) in enumerate(VERSIONS):
        schema, now = DocumentSchema(tuple(fields)), log.load().metadata
        after = (
            new_metadata(TableIdentity("p", "db", "things"), schema, "deletion_vectors", 1, 0)
            if now is None
            else with_schema(now, schema)
        )
        events = {"/a": EventPosition("p.db.things", 0, 0), "/b/c": EventPosition("p.db.things", 0, 17)}
        cause = SchemaCause(operation, f"commit {version}", 1_700_000_000_000, version, events)
        metadata, change = change_schema(now, after, cause)
        put_change(store, change)
        log.append(version, [Action(protocol=Protocol(1, 2)), Action(meta_data=metadata)])
    return store


def told(spec: PipelineSpec, **options: Any) -> str:
    return schema_history(ObjectStoreSettings(), spec, "things", **({"history": False, "as_json": False} | options))


def test_people_read_what_changed_when_and_by_which_event(spec, tmp_path):
    fill(tmp_path)
    assert told(spec).splitlines() == [
        "version 1  2023-11-14 22:13:20+00:00  created",
        "    added    /a  long  first shown by p.db.things:0:0",
        "version 2  2023-11-14 22:13:20+00:00  widened, rules version 1",
        "    added    /b  struct",
        "    added    /b/c  string  first shown by p.db.things:0:17",
        "version 3  2023-11-14 22:13:20+00:00  promoted, rules version 2",
        "    retyped  /a  long → double",
    ]


def test_programs_read_json_with_the_whole_schemas(spec, tmp_path):
    fill(tmp_path)
    changes = json.loads(told(spec, as_json=True))
    assert [change["version"] for change in changes] == [1, 2, 3]
    assert changes[1]["fields"][1]["event"] == {"topic": "p.db.things", "partition": 0, "offset": 17}
    assert json.loads(changes[0]["schema"])["fields"][-1]["name"] == "a"


def test_lost_records_are_said_to_be_lost(spec, tmp_path):
    store = fill(tmp_path)
    store.delete(f"{HISTORY_DIR}/0000000002-commit 1.json")
    first, second, *_ = told(spec).splitlines()
    assert first == "older changes are lost: somebody has deleted the record 0000000002-commit 1"
    assert second.startswith("version 3")


def test_no_table_is_an_error_that_says_where_it_was_looked_for(spec, tmp_path):
    with pytest.raises(Fatal, match=rf"no table at {tmp_path}/p/db/things, or it was made before"):
        told(spec)
