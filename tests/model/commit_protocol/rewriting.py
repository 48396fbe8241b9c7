"""Commits that are not batches: rewritten files, and rows that a sweep deletes (`writer/file_changes.py`)."""

from __future__ import annotations

from collections.abc import Iterator

from commit_protocol import commits
from commit_protocol.memory import Change, Scene, Step
from commit_protocol.model import Model, Violation
from commit_protocol.protections import Protection
from commit_protocol.store import Entry, File, Table
from commit_protocol.stream import Row


class RowsMoved(Exception):
    """`file_changes.RowsMoved`."""


def prepare(model: Model, scene: Scene) -> Iterator[tuple[str, Change]]:
    """What the writer may prepare from the version that it knows."""
    table = scene.view
    if table.files and sum(entry.moves_rows for entry in scene.store.log) < model.rewrites:
        yield f"prepares a rewrite of version {table.version}", Change(table.version, table.files)
    if model.sweeps and not table.swept and _snapshot_is_in(model, table):
        yield f"prepares a sweep of version {table.version}", Change(table.version, _ghosts(model, table), sweeps=True)


def _snapshot_is_in(model: Model, table: Table) -> bool:
    if Protection.SWEEP_AFTER_SNAPSHOT not in model.on:
        return table.version >= 0
    return all(at >= end for at, end in zip(table.offsets, model.stream.snapshot_ends, strict=True))


def _ghosts(model: Model, table: Table) -> tuple[File, ...]:
    """The files with live rows from before the snapshot's first record; `deleted` marks these rows."""
    starts = model.stream.snapshot_starts
    found = []
    for file in table.files:
        doomed = sum(1 << i for i, row in enumerate(file.rows) if row in file.live and row[1] < starts[row[0]])
        if doomed:
            found.append(file._replace(deleted=doomed))
    return tuple(found)


def attempt(model: Model, scene: Scene) -> Iterator[Step]:
    """`replace_files` or `delete_rows`, from the plan on the newest version known to the put."""
    change = _change(scene)
    what = "sweep" if change.sweeps else "rewrite"
    try:
        entry = (_delete_rows if change.sweeps else _replace_files)(model, scene)
    except RowsMoved:
        # After a reload it cannot be told; then nothing may be deleted that the change had written (nor is it).
        if not change.forgotten and scene.change_id in scene.me.unanswered and scene.store.has(scene.change_id):
            raise Violation("I3", f"a {what} that has landed is taken for one that others forestalled") from None
        yield f"{what}: rows have moved, to be prepared anew", commits.done(scene, scene.change_id)
    else:
        if entry is None:
            yield f"{what}: nothing to do", commits.done(scene, scene.change_id)
        else:
            yield f"{what}: puts version {scene.view.version + 1}", commits.put(scene, entry)


def _replace_files(model: Model, scene: Scene) -> Entry | None:
    table = scene.view
    rows: list[Row] = []
    replaced: list[str] = []
    deleted = 0
    for then in _change(scene).inputs:
        now = table.file(then.name)
        if now is None:
            _check_moved(model, scene, then.name)
        else:
            if then.deleted & ~now.deleted and Protection.RESTORE_CHECK in model.on:
                raise RowsMoved
            replaced.append(then.name)
        for i, row in enumerate(then.rows):
            if not then.deleted >> i & 1:
                if Protection.CARRY_OVER in model.on and (now is None or now.deleted >> i & 1):
                    deleted |= 1 << len(rows)
                rows.append(row)
    if not replaced:
        return None
    output = File(f"v{table.version + 1}", tuple(rows), deleted)
    adds = () if output.is_empty else (output,)
    return Entry(scene.change_id, removes=tuple(replaced), adds=adds, moves_rows=True)


def _delete_rows(model: Model, scene: Scene) -> Entry | None:
    table = scene.view
    swaps = []
    for found in _change(scene).inputs:
        now = table.file(found.name)
        if now is None:
            _check_moved(model, scene, found.name)
        elif found.deleted & ~now.deleted:
            swaps.append(now._replace(deleted=now.deleted | found.deleted))
    if Protection.SWEEP_ROWS not in model.on:
        swaps = _whole_keys(model, scene)
    if not swaps and table.swept:
        return None
    removes = tuple(file.name for file in swaps)
    adds = tuple(file for file in swaps if not file.is_empty)
    return Entry(scene.change_id, removes=removes, adds=adds, sweeps=True)


def _whole_keys(model: Model, scene: Scene) -> list[File]:
    """The mistake that SWEEP_ROWS is there against: every row of the keys that were found."""
    found = {
        model.stream.event(row).key
        for file in _change(scene).inputs
        for i, row in enumerate(file.rows)
        if file.deleted >> i & 1
    }
    swaps = []
    for file in scene.view.files:
        marks = sum(1 << i for i, row in enumerate(file.rows) if model.stream.event(row).key in found)
        if marks & ~file.deleted:
            swaps.append(file._replace(deleted=file.deleted | marks))
    return swaps


def _check_moved(model: Model, scene: Scene, name: str) -> None:
    """`MovedFiles.check`: a file that left without being moved has no row left."""
    change = _change(scene)
    since = scene.store.log[change.read_version + 1 : scene.view.version + 1]
    moved = change.forgotten or any(entry.moves_rows and name in entry.removes for entry in since)
    if moved and Protection.MOVED_CHECK in model.on:
        raise RowsMoved


def _change(scene: Scene) -> Change:
    assert scene.me.change is not None
    return scene.me.change
