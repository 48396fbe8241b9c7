"""What other programs did to a table's rows can be accepted; the writer then repairs every row that it is sent for."""

import math
import random
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from pyroaring import BitMap
from table_damage import Harm, damage_table

from cdc_shared.delta.foreign_commits import ForeignCommit
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.row_reading import read_rows
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import MASKED, TableIdentity
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.maintenance import compactor
from delta_writer.maintenance.acceptance import ForeignChange, TableAcceptance
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.compactor import rewrite_files

pytestmark = pytest.mark.unit

MODES = ["deletion_vectors", "copy_on_write"]
TOPIC = ChangeTopic("p.db.things", "topic-id", 1)
STORES = ObjectStoreSettings()


def document(n: int) -> dict[str, Any]:
    sub = {"a": n, "b": f"b{n}"}
    return {"text": f"t{n}", "sub": sub, "n": n, "email": f"e{n}", "mixed": [n, "x", {"p": 1, "q": 2}]}


def filled(new_table: Callable[..., Any], mode: str = "deletion_vectors") -> Any:
    """A closed table of 60 documents, some of them in their second version."""
    table = new_table(mode)
    writer = table.open()
    table.apply(writer, [(n, document(n)) for n in range(60)])
    table.apply(writer, [(n, document(n)) for n in range(0, 60, 3)])
    writer.close()
    return table


def acceptance(table: Any, collection: str = "things") -> TableAcceptance:
    return TableAcceptance(
        TableLocation(table.url, table.store, {}),
        TableIdentity("p", "db", collection),
        TOPIC,
        table.mode,
        lambda: 1_700_000_000,
    )


def accept(table: Any) -> int:
    accepting = acceptance(table)
    return accepting.apply(accepting.plan())


def repair(table: Any, writer: Any, keys: list[int]) -> None:
    """Bring the rows of keys to what the model holds, as re-read requests do."""
    model = {key: {name: value for name, value in each.items() if name != "_id"} for key, each in table.model.items()}
    table.apply(writer, [(key, model.get(key)) for key in keys])


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_damage_is_repaired_after_it_was_accepted(new_table, mode, rng: random.Random):
    """Attacks I1 and I5: the key index meets files that it did not make, and keys that are there twice."""
    table = filled(new_table, mode)
    extra = [1_000, 1_001, 1_002]
    done = damage_table(table.url, STORES, rng, dict.fromkeys(Harm, 3), extra)
    assert len(table.rows()) == 60 - 3 + 2 * 3 + 3
    with pytest.raises(ForeignCommit, match="`delta-writer accept p things --spec FILE`"):
        table.open()

    version = accept(table)
    assert DeltaLog(table.store).load().version == version
    for repaired in (list(map(int, done)), []):  # and the same after a restart
        writer = table.open()
        repair(table, writer, repaired)
        table.assert_equals_model(writer)
        writer.close()


def test_files_of_another_program_are_compacted(new_table, rng: random.Random):
    """Attacks I8: delta-rs writes texts as views, which Arrow neither filters nor takes."""
    table = filled(new_table)
    done = damage_table(table.url, STORES, rng, dict.fromkeys(Harm, 3), [1_000, 1_001, 1_002])
    accept(table)
    writer = table.open()
    repair(table, writer, list(map(int, done))[::2])
    held = sorted(table.rows(), key=str)
    files = list(writer.snapshot.files.values())
    budget = Budget(1.0, math.inf, threading.Event())
    schema = writer.snapshot.metadata.schema_string
    rewritten = rewrite_files(writer.location.store, writer.version, schema, files, budget, writer.cache_dir)
    assert writer.replace_files(rewritten) is not None
    assert sorted(table.rows(), key=str) == held
    repair(table, writer, list(map(int, done)))
    table.assert_equals_model(writer)


def test_rows_of_another_programs_files_are_read_one_by_one(new_table, rng: random.Random):
    table = filled(new_table)
    done = damage_table(table.url, STORES, rng, {Harm.TEXT: 5})
    snapshot = DeltaLog(table.store).load()
    rows = {path: BitMap([0, 1]) for path in snapshot.files}
    schema = compactor.arrow_schema(snapshot.metadata.schema_string)
    read = read_rows(table.store, snapshot.files, rows, schema)
    assert read.schema == schema
    expected = {row["_cdc_key"]: row for row in table.rows()}
    assert all(row == expected[row["_cdc_key"]] for row in read.to_pylist() if row["_cdc_key"] in done)
    assert any(row["_cdc_key"] in done for row in read.to_pylist())


def test_rows_that_live_again_are_found_although_the_index_had_forgotten_them(new_table):
    """Attacks I7: a foreign RESTORE brings rows back whose entries merges have dropped."""
    table = filled(new_table)
    writer = table.open()
    for round_ in range(16):
        table.apply(writer, [(key % 60, document(key + round_)) for key in range(round_ * 7, round_ * 7 + 24)])
    DeltaTable(table.url).restore(1)
    accept(table)
    with pytest.raises(ForeignCommit):  # one that ran through it must begin again
        repair(table, writer, [1])
    writer.close()
    writer = table.open()
    repair(table, writer, list(range(60)))
    table.assert_equals_model(writer)


def test_the_plan_says_who_did_what_and_accepting_twice_finds_nothing(new_table):
    table = filled(new_table)
    last = DeltaLog(table.store).load().version
    DeltaTable(table.url).delete("n = 2")
    plan = acceptance(table).plan()
    engine = plan.changes[0].engine
    assert plan.changes == [ForeignChange(last + 1, "DELETE", engine, 1, 1)]
    assert engine.startswith("delta-rs")
    assert acceptance(table).apply(plan) == acceptance(table).apply(plan) == last + 2
    assert acceptance(table).plan().changes == []


def test_what_comes_between_plan_and_commit_is_not_accepted_unseen(new_table):
    table = filled(new_table)
    DeltaTable(table.url).delete("n = 2")
    plan = acceptance(table).plan()
    DeltaTable(table.url).delete("n = 4")
    with pytest.raises(Fatal, match="written meanwhile"):
        acceptance(table).apply(plan)
    assert len(acceptance(table).plan().changes) == 2


def test_rows_without_a_key_are_refused(new_table):
    table = filled(new_table)
    schema = pa.schema(DeltaTable(table.url).schema().to_arrow())
    write_deltalake(table.url, pa.Table.from_pylist([{"text": "mine"}], schema=schema), mode="append")
    with pytest.raises(Fatal, match=r"1 rows of .* have no _cdc_key.*`delta-writer restore p things`"):
        acceptance(table).plan()


def test_rows_from_before_a_masking_are_refused(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(n, document(n)) for n in range(4)])
    writer.set_properties({MASKED: "2"})
    DeltaTable(table.url).delete("n = 2")  # rewrites the file, whose rows have no version of rules
    with pytest.raises(Fatal, match="before the masks of version 2"):
        acceptance(table).plan()


def test_a_changed_schema_cannot_be_accepted(new_table):
    table = filled(new_table)
    DeltaTable(table.url).delete("n = 2")
    DeltaTable(table.url).alter.add_columns([Field("mine", "string")])
    with pytest.raises(ForeignCommit, match=r"column mine \(string\) was added"):
        acceptance(table).plan()


def test_another_collections_table_is_refused(new_table):
    table = filled(new_table)
    DeltaTable(table.url).delete("n = 2")
    with pytest.raises(Fatal, match="belongs to"):
        acceptance(table, "others").plan()
