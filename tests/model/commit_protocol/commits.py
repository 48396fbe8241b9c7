"""What all commits share, and those of batches (`writer/delta_writer.py`, `writer/deletion_vector_writer.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from commit_protocol import rewriting
from commit_protocol.memory import Batch, Phase, Position, Scene, Step, Writer
from commit_protocol.model import Model, Violation
from commit_protocol.protections import Protection
from commit_protocol.store import Entry, File, Put, Table
from commit_protocol.stream import Row


class Fenced(Exception):
    """`offsets.Fenced`."""


class SchemaMoved(Exception):
    """`delta_writer.SchemaMoved`."""


def reload(scene: Scene) -> Writer:
    """`DeltaWriter.reload`: the table anew.

    Which files were moved on the way is no longer known (`MovedFiles`), nor whether a put without an answer landed.
    """
    me, table = scene.me, scene.table
    unanswered = frozenset(each for each in me.unanswered if not scene.store.has(each))
    change = me.change and me.change._replace(forgotten=me.change.read_version < table.version)
    return me._replace(
        snapshot=table,
        must_look=False,
        old=False,
        change=change,
        unanswered=unanswered,
        unindexed=frozenset(),
        follows=True,
    )


def reload_without_keys(model: Model, scene: Scene) -> Writer:
    """`DeltaWriter.reload` when the store goes away once the log is read, in `DeletionVectorWriter._open_index`."""
    before = {file.name for file in scene.view.files} - scene.me.unindexed
    unindexed = frozenset(file.name for file in scene.table.files) - before
    return reload(scene)._replace(unindexed=unindexed, follows=Protection.INDEX_FOLLOWS not in model.on)


def catch_up(model: Model, scene: Scene, at_most: int | None = None) -> Writer:
    """`DeltaWriter._catch_up`; `at_most`: the store goes away after so many entries, before the index has read them."""
    me, view = scene.me, scene.view
    landed, read = me.landed, 0
    while scene.store.holds(view.version + 1) and read != at_most:
        entry = scene.store.log[view.version + 1]
        view = view.apply(entry)
        read += 1
        if entry.commit_id in me.unanswered and Protection.OWN_COMMITS in model.on:
            landed |= {entry.commit_id}
    before = {file.name for file in scene.view.files} - me.unindexed
    me = me._replace(snapshot=view, landed=landed, unanswered=me.unanswered - landed)
    if read != at_most:
        return me._replace(must_look=False, old=False, unindexed=frozenset(), follows=True)
    unindexed = frozenset(file.name for file in view.files) - before
    return me._replace(must_look=me.must_look or Protection.LOOK_AGAIN in model.on, unindexed=unindexed)


def until_landed(model: Model, scene: Scene, commit_id: int) -> Iterator[Step]:
    """`DeltaWriter._until_landed`, from one look at the store to the next put."""
    me = scene.me
    if not me.follows:
        me = me._replace(unindexed=frozenset(), follows=True)
        scene = scene.but(me)
    if me.old and Protection.LOOK_WHEN_OLD in model.on:
        stays = Protection.AGE_OF_WHAT_WAS_READ in model.on
        yield "! the store goes away while it reads the table anew", scene.but(me._replace(old=stays))
        me = reload(scene)
    elif me.must_look:
        if scene.table.version - scene.view.version > 1:
            yield "! the store goes away while it catches up", scene.but(catch_up(model, scene, at_most=1))
        me = catch_up(model, scene)
    scene = scene.but(me)
    if commit_id in me.landed:
        yield "finds that it has landed", heard(scene, commit_id)
    elif commit_id == scene.change_id:
        yield from rewriting.attempt(model, scene)
    else:
        yield from _attempt(model, scene)


def _attempt(model: Model, scene: Scene) -> Iterator[Step]:
    """`DeltaWriter.commit`, and what `Pipeline._encode_and_commit` and `_bring_into_table` make of its outcome."""
    try:
        entry = _planned(model, scene)
    except Fenced:
        if scene.batch_id in scene.me.unanswered and scene.store.has(scene.batch_id):
            raise Violation("I3", "a writer took its own commit for somebody else's") from None
        yield "fenced, reads again where the table stands", _read_again(model, scene)
    except SchemaMoved:
        scene = scene.disown(scene.batch_id)  # a new id
        batch = _batch(scene)._replace(base_schema=scene.view.schema)
        yield from _attempt(model, scene.but(scene.me._replace(batch=batch)))
    else:
        if entry is None:
            yield "changes no row", done(scene, scene.batch_id)
        else:
            yield f"puts version {scene.view.version + 1}", put(scene, entry)


def _planned(model: Model, scene: Scene) -> Entry | None:
    """What the batch puts on the newest version known; None when it changes no row and need not commit."""
    table, batch = scene.view, _batch(scene)
    if Protection.FENCE in model.on and any(table.offsets[p] != start for p, start, _ in batch.ranges):
        raise Fenced
    if Protection.SCHEMA_CHECK in model.on and batch.base_schema != table.schema:
        raise SchemaMoved
    return _write(model, table, scene.me.unindexed, batch, scene.batch_id)


def _write(model: Model, table: Table, unindexed: frozenset[str], batch: Batch, commit_id: int) -> Entry | None:
    """`DeletionVectorWriter._write`: new rows in a new file, the old rows of their keys in wider vectors."""
    last = {model.stream.event(record).key: record for record in batch.records}  # the last event of a key wins
    rows = tuple(record for record in last.values() if model.stream.event(record).upsert)
    known = [file for file in table.files if file.name not in unindexed]
    swaps = [wider for file in known if (wider := _without_keys(model, file, last)) != file]
    if not swaps and not rows and not batch.must_commit:
        return None
    adds = tuple(file for file in swaps if not file.is_empty)
    if rows:
        adds += (File(f"v{table.version + 1}", rows),)
    schema = batch.base_schema | {model.stream.event(row).column for row in rows}
    removes = tuple(file.name for file in swaps)
    return Entry(commit_id, batch.ranges, removes, adds, schema=None if schema == table.schema else schema)


def _without_keys(model: Model, file: File, keys: Mapping[str, Row]) -> File:
    marks = sum(1 << i for i, row in enumerate(file.rows) if model.stream.event(row).key in keys)
    return file._replace(deleted=file.deleted | marks)


def put(scene: Scene, entry: Entry) -> Scene:
    """`DeltaWriter._append` up to the request."""
    me = scene.me
    request = Put(scene.view.version + 1, entry)
    unanswered = me.unanswered | {entry.commit_id}
    return scene.but(me._replace(phase=Phase.PUTTING, put=request, must_look=True, unanswered=unanswered))


def heard(scene: Scene, commit_id: int) -> Scene:
    """The caller learns that its entry is in the log; of a batch: `BatchProcessor.committed`."""
    me = scene.me
    if commit_id == scene.batch_id:
        for partition, _, end in _batch(scene).ranges:
            if (position := me.positions[partition]) is not None:
                me = me.at(partition, Position(end, max(position.next, end), position.fetch))
    return done(scene.but(me), commit_id)


def done(scene: Scene, commit_id: int) -> Scene:
    """The batch or change is no longer in hand."""
    me = scene.me._replace(phase=Phase.POLLING)
    me = me._replace(batch=None) if commit_id == scene.batch_id else me._replace(change=None)
    me = me._replace(unanswered=me.unanswered - {commit_id}, landed=me.landed - {commit_id})
    return scene.disown(commit_id).but(me)


def _read_again(model: Model, scene: Scene) -> Scene:
    """`Pipeline._read_again`: read the table anew, seek to where it stands."""
    me = reload(scene)
    for partition, position in enumerate(me.positions):
        if position is not None:
            at = scene.table.offsets[partition]
            me = me.at(partition, Position(at, at, at if Protection.SEEK_BACK in model.on else position.fetch))
    return done(scene.but(me), scene.batch_id)


def _batch(scene: Scene) -> Batch:
    assert scene.me.batch is not None
    return scene.me.batch
