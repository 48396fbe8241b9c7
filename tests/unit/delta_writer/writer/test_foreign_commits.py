"""Commits of other programs are followed when they only move rows; one that changes rows stops the writer."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from deltalake import DeltaTable
from msgspec.structs import replace

from cdc_shared.delta.actions import Action
from cdc_shared.delta.log import DeltaLog, entry_path
from delta_writer.writer.foreign_commits import ForeignCommit

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
    message = rf"version {last + 1} of {table.url} .*\({operation}, engine delta-rs.* p things --version {last}`"
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


@pytest.mark.parametrize(
    "change",
    [
        lambda table: with_configuration(table, **{"cdc.topicPartitions": "1", "cdc.more": "x"}),
        lambda table: with_configuration(table, **{"delta.enableDeletionVectors": "false"}),
        lambda table: Action(meta_data=narrowed(table)),
    ],
    ids=["our properties", "vectors switched off", "schema"],
)
def test_a_change_of_schema_or_of_our_properties_stops_the_writer(new_table, change):
    table, writer = filled(new_table)
    append(table, [change(table)], operation="CHANGE", engineInfo="Apache-Spark/4.0.1")
    for attempt in (table.open, writer.refresh):
        with pytest.raises(ForeignCommit, match=r"CHANGE, engine Apache-Spark/4.0.1\) and changed the schema"):
            attempt()


def narrowed(table: Any) -> Any:
    metadata = DeltaLog(table.store).load().metadata
    schema = json.loads(metadata.schema_string)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "n"]
    return replace(metadata, schema_string=json.dumps(schema))


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
