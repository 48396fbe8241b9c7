"""Commits of other programs are followed when they only move rows; one that changes rows stops the writer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from msgspec.structs import replace

from cdc_shared.delta.actions import Action, Protocol
from cdc_shared.delta.foreign_commits import ForeignCommit
from cdc_shared.delta.log import DeltaLog, entry_path
from cdc_shared.delta.schema_history import HISTORY_DIR
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit

MODES = ["deletion_vectors", "copy_on_write"]


def filled(new_table: Callable[..., Any], mode: str = "deletion_vectors") -> tuple[Any, Any]:
    """A table of three commits, and the writer that made them."""
    table = new_table(mode)
    writer = table.open()
    for round_ in range(3):
        table.apply(writer, [(i, {"n": round_}) for i in range(round_, 12, 2)])
    return table, writer


def overwrite(url: str) -> None:
    table = DeltaTable(url)
    table.update({"n": "n + 1"})


CHANGES: dict[str, Callable[[str], Any]] = {
    "DELETE": lambda url: DeltaTable(url).delete("n = 2"),
    "UPDATE": overwrite,
    "RESTORE": lambda url: DeltaTable(url).restore(1),
}


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("mode", MODES)
def test_a_commit_that_changes_rows_stops_the_writer(new_table, mode, operation):
    """Attacks I1: the offsets no longer say what is in the table."""
    table, writer = filled(new_table, mode)
    CHANGES[operation](table.url)
    last = writer.version
    message = (
        rf"version {last + 1} of {table.url} .*\({operation}, engine delta-rs.* p things --version {last} --spec FILE`"
    )
    with pytest.raises(ForeignCommit, match=message):
        table.open()
    batch = table.encode(writer, table.batch([(1, {"n": 9})]))
    with pytest.raises(ForeignCommit, match=message):
        writer.commit(batch)
    assert DeltaLog(table.store).read_entry(last + 2) is None


@pytest.mark.parametrize("mode", MODES)
def test_moved_rows_vacuum_and_properties_are_followed(new_table, mode):
    """Attacks I5 and I7: the index is told of the rows' new places."""
    table, writer = filled(new_table, mode)
    behind = table.open()
    DeltaTable(table.url).optimize.compact()
    DeltaTable(table.url).alter.set_table_properties({"delta.logRetentionDuration": "interval 10 days"})
    DeltaTable(table.url).vacuum(retention_hours=1000, dry_run=False)
    for each in (behind, writer):
        records = table.batch([(i, {"n": -i}) for i in range(0, 12, 3)])
        if each is behind:
            table.commit(behind, records)
            writer.reload()
        else:
            table.commit(writer, records)
    table.assert_equals_model(writer)
    fresh = table.open()
    table.apply(fresh, [(4, None), (5, {"n": 55})])
    table.assert_equals_model(fresh)


def append(table: Any, actions: list[Action], **info: Any) -> None:
    log = DeltaLog(table.store)
    log.append(log.load().version + 1, [Action(commit_info=info), *actions])


def with_configuration(table: Any, **properties: str) -> Action:
    metadata = DeltaLog(table.store).load().metadata
    return Action(meta_data=replace(metadata, configuration={**metadata.configuration, **properties}))


def with_columns(table: Any, change: Callable[[dict[str, dict[str, Any]]], Any], **properties: str) -> Action:
    """The table's metadata after a change of its top-level columns, which are given by name."""
    metadata = DeltaLog(table.store).load().metadata
    assert metadata is not None
    schema = json.loads(metadata.schema_string)
    fields = {field["name"]: field for field in schema["fields"]}
    change(fields)
    schema["fields"] = list(fields.values())
    configuration = {**metadata.configuration, **properties}
    return Action(meta_data=replace(metadata, schema_string=json.dumps(schema), configuration=configuration))


OF_THEIRS = {"name": "x", "type": "date", "nullable": True, "metadata": {}}
ALTERED: dict[str, tuple[Callable[[dict[str, dict[str, Any]]], Any], str]] = {
    "dropped": (lambda columns: columns.pop("n"), r"column n \(long\) was dropped"),
    "retyped": (lambda columns: columns["n"].update(type="string"), "column n was long and is string"),
    "renamed": (lambda columns: columns["n"].update(name="m"), "column n was renamed to m, or dropped and m added"),
    "added": (lambda columns: columns.update(x=OF_THEIRS), r"column x \(date\) was added"),
    "not null": (lambda columns: columns["n"].update(nullable=False), "column n is NOT NULL now"),
    "own column": (lambda columns: columns.pop("_cdc_offset"), r"column _cdc_offset \(long\) was dropped"),
}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda table: with_configuration(table, **{"cdc.topicPartitions": "3", "cdc.more": "x"}),
            "property cdc.more was not set and is x; property cdc.topicPartitions was 1 and is 3",
        ),
        (
            lambda table: with_configuration(table, **{"delta.enableDeletionVectors": "false"}),
            "property delta.enableDeletionVectors was true and is false",
        ),
        *((lambda table, made=made: with_columns(table, made), what) for made, what in ALTERED.values()),
    ],
    ids=["our properties", "vectors switched off", *ALTERED],
)
def test_a_change_of_schema_or_of_our_properties_stops_the_writer(new_table, change, what):
    table, writer = filled(new_table)
    append(table, [change(table)], operation="CHANGE", engineInfo="Apache-Spark/4.0.1")
    for attempt in (table.open, writer.refresh):
        with pytest.raises(
            ForeignCommit,
            match=rf"CHANGE, engine Apache-Spark/4.0.1\) and changed the schema.*{what}.* --version 2 --spec FILE`",
        ):
            attempt()
    assert DeltaLog(table.store).read_entry(4) is None


def forget_entries(table: Any) -> None:
    """Leave of the log what clean-up leaves: the newest state, and not who made it."""
    DeltaTable(table.url).create_checkpoint()
    newest = DeltaLog(table.store).load().version
    for version in range(newest + 1):
        table.store.delete(entry_path(version))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("change", "what"), ALTERED.values(), ids=ALTERED)
def test_an_altered_schema_is_found_when_the_log_no_longer_tells_who_did_it(new_table, mode, change, what):
    """As a writer that stood still for longer than the log is kept finds it."""
    table, _ = filled(new_table, mode)
    append(table, [with_columns(table, change)], operation="CHANGE", engineInfo="Apache-Spark/4.0.1")
    forget_entries(table)
    with pytest.raises(
        ForeignCommit, match=rf"since schema version 1: {what}.*`delta-writer schema-history p things --json`"
    ):
        table.open()
    for name in Path(table.url, HISTORY_DIR).iterdir():
        name.unlink()
    with pytest.raises(ForeignCommit, match="the record of what it should be is gone"):
        table.open()


@pytest.mark.parametrize("mode", MODES)
def test_a_schema_that_nobody_changed_is_found_as_it_should_be(new_table, mode):
    table, writer = filled(new_table, mode)
    table.apply(writer, [(1, {"n": 1, "more": {"x": [1.5]}})])
    forget_entries(table)
    again = table.open()
    table.apply(again, [(1, {"n": 2, "more": {"x": []}, "third": True})])
    table.assert_equals_model(again)


@pytest.mark.parametrize("forgotten", [False, True], ids=["the log tells", "the log forgot"])
def test_a_schema_that_was_put_back_is_as_good_as_before(new_table, forgotten):
    """The remedy that the message names."""
    table, _ = filled(new_table)
    before = DeltaLog(table.store).load().metadata
    append(table, [with_columns(table, lambda columns: columns.pop("n"))], operation="CHANGE", engineInfo="Spark")
    if forgotten:
        forget_entries(table)
    with pytest.raises(ForeignCommit):
        table.open()
    append(table, [Action(meta_data=before)], operation="CHANGE", engineInfo="Spark")
    writer = table.open()
    table.apply(writer, [(1, {"n": 5, "more": "x"})])
    table.assert_equals_model(writer)


def add_column(url: str) -> None:
    DeltaTable(url).alter.add_columns([Field("mine", "string")])


def comment(url: str) -> None:
    DeltaTable(url).alter.set_column_metadata("n", {"comment": "mine"})


def overwrite_schema(url: str) -> None:
    write_deltalake(url, pa.table({"n": ["x"]}), mode="overwrite", schema_mode="overwrite")


@pytest.mark.parametrize(
    ("alter", "what"),
    [
        (add_column, r"changed the schema.*column mine \(string\) was added"),
        (comment, r"changed the schema.*column n has other metadata \(comment\)"),
        (overwrite_schema, "changed rows"),
    ],
)
def test_what_delta_rs_does_to_a_schema_is_told(new_table, alter, what):
    table, writer = filled(new_table, "copy_on_write")
    alter(table.url)
    for attempt in (table.open, writer.refresh):
        with pytest.raises(ForeignCommit, match=what):
            attempt()
    forget_entries(table)
    with pytest.raises(Fatal, match=r"another program has changed|not made by the delta-writer"):
        table.open()


def test_who_did_it_is_told_before_what_is_not_supported(new_table):
    """RENAME COLUMN of Spark: column mapping comes first, with a protocol that cannot be taken back."""
    table, writer = filled(new_table)

    def mapped(columns: dict[str, dict[str, Any]]) -> None:
        for number, column in enumerate(columns.values()):
            mapping = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": column["name"]}
            column["metadata"] = {**column["metadata"], **mapping}

    protocol = Protocol(3, 7, ["columnMapping", "deletionVectors"], ["columnMapping", "deletionVectors"])
    switched_on = with_columns(table, mapped, **{"delta.columnMapping.mode": "name"})
    append(table, [Action(protocol=protocol), switched_on], operation="SET TBLPROPERTIES", engineInfo="Spark")
    with pytest.raises(
        ForeignCommit, match=r"\(property delta.columnMapping.mode was not set and is name\).*has columnMapping.*resync"
    ):
        writer.refresh()
    renamed = with_columns(table, lambda columns: columns["n"].update(name="renamed"))
    append(table, [renamed], operation="RENAME COLUMN", engineInfo="Spark")
    with pytest.raises(ForeignCommit, match=r"version 3 .*SET TBL.*up to version 4: .*column n was renamed to renamed"):
        table.open()


def test_of_many_alterations_all_is_told_and_the_version_before_them_is_named(new_table):
    table, _ = filled(new_table)
    append(table, [with_configuration(table, harmless="x")], operation="SET TBLPROPERTIES", engineInfo="Spark")
    for made, _what in (ALTERED["added"], ALTERED["retyped"]):
        append(table, [with_columns(table, made)], operation="CHANGE COLUMN", engineInfo="Spark")
    message = (
        r"version 4 .*CHANGE COLUMN.*\(up to version 5: column n was long and is string; column x \(date\) was added\)"
        ".*--version 3 --spec FILE`"
    )
    with pytest.raises(ForeignCommit, match=message):
        table.open()


def test_the_same_schema_in_other_words_is_the_same(new_table):
    table, writer = filled(new_table)
    metadata = DeltaLog(table.store).load().metadata
    reworded = replace(metadata, schema_string=json.dumps(json.loads(metadata.schema_string), indent=1))
    append(table, [Action(meta_data=reworded)], operation="SET TBLPROPERTIES", engineInfo="Apache-Spark/4.0.1")
    writer.refresh()
    table.apply(table.open(), [(1, {"n": 1})])


def test_a_harmful_commit_is_found_under_harmless_ones(new_table):
    table, _ = filled(new_table)
    overwrite(table.url)
    DeltaTable(table.url).optimize.compact()
    DeltaTable(table.url).vacuum(retention_hours=1000, dry_run=False)
    with pytest.raises(ForeignCommit, match="version 3 of"):
        table.open()


def test_an_entry_of_ours_after_it_settles_the_matter(new_table):
    """`delta-writer restore` writes such an entry."""
    table, _ = filled(new_table)
    overwrite(table.url)
    DeltaTable(table.url).restore(2)
    append(table, [], operation="RESTORE", engineInfo="cdc-delta-writer")
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    table.assert_equals_model(writer)


def test_one_entry_is_read_when_the_newest_is_ours(new_table, monkeypatch):
    table, _ = filled(new_table)
    DeltaTable(table.url).create_checkpoint()
    read, real = [], DeltaLog.read_entry

    def read_entry(self: DeltaLog, version: int) -> Any:
        read.append(version)
        return real(self, version)

    monkeypatch.setattr(DeltaLog, "read_entry", read_entry)
    table.open()
    assert read == [2]


def test_entries_that_log_clean_up_has_deleted_are_passed_over(new_table):
    table, _ = filled(new_table)
    DeltaTable(table.url).optimize.compact()
    DeltaTable(table.url).create_checkpoint()
    for version in range(3):
        table.store.delete(entry_path(version))
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    table.assert_equals_model(writer)
