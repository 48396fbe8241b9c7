"""One writer process: what it may do next. Each function is named for the code that it mirrors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from commit_protocol import rewriting
from commit_protocol.commits import catch_up, reload, reload_without_keys, until_landed
from commit_protocol.memory import Batch, Phase, Position, Scene, Step, Writer
from commit_protocol.model import Model
from commit_protocol.protections import Protection
from commit_protocol.puts import outcomes
from commit_protocol.store import Range
from commit_protocol.stream import Row


def steps(model: Model, scene: Scene) -> Iterator[Step]:
    """Everything that the process may do, or that may happen to it. Faults are named with a `!`.

    A step goes from one look at what is shared to the next: what a process does in between concerns nobody else, so
    its order against the steps of others makes no difference.
    """
    me = scene.me
    if me.phase is Phase.DOWN:
        for partition in range(len(me.positions)):
            yield f"starts with partition {partition}", _assigned(model, scene, partition)
        return
    yield "is stopped" if model.restores else "! is killed", _killed(scene)  # a restore asks for it
    if me.phase is Phase.PUTTING:
        yield from outcomes(model, scene)
        return
    for partition, position in enumerate(me.positions):
        # Also to two members at once: one of them sleeps, or is slow to hear of it.
        if position is None:
            label = "is assigned" if me.phase is Phase.POLLING else "! waits and is assigned"
            yield f"{label} partition {partition}", _assigned(model, scene, partition)
        else:
            yield f"! loses partition {partition}", scene.but(_revoked(model, me, partition))
    if model.forgets and not me.old:
        yield "! sleeps for longer than MAX_SNAPSHOT_AGE_S", scene.but(me._replace(old=True))
    if model.cuts and not me.old and scene.store.holds(scene.view.version + 1):
        yield "! looks at the table, which is cut short", scene.but(catch_up(model, scene, at_most=1))
        yield "! reads the table anew, but not its new files' keys", scene.but(reload_without_keys(model, scene))
    if me.phase is Phase.COMMITTING:
        yield from until_landed(model, scene, scene.batch_id)
        return
    for reading in _reads(model, me):
        yield from _due(model, scene.but(reading))
        if reading.open:
            for partition in (p for p, position in enumerate(me.positions) if position is not None):
                label = f"! reads {_named(reading.open)} and loses partition {partition}"
                yield label, scene.but(_revoked(model, reading, partition))
    yield from _upkeep(model, scene)


def _killed(scene: Scene) -> Scene:
    """Nothing is left of its memory; a put that it has sent goes its own way (`puts`)."""
    gone = scene.disown(scene.batch_id).disown(scene.change_id)
    return gone.but(Writer(positions=(None,) * len(scene.me.positions)))


def _assigned(model: Model, scene: Scene, partition: int) -> Scene:
    """`Pipeline._assigned`, `Tables.start_offset`: look at the table (`DeltaWriter.refresh`), read where it stands."""
    me = scene.me
    me = reload(scene) if me.snapshot is None or me.old else catch_up(model, scene)
    if me.phase is Phase.DOWN:
        me = me._replace(phase=Phase.POLLING)
    assert me.snapshot is not None
    offset = me.snapshot.offsets[partition]
    return scene.but(me.at(partition, Position(offset, offset, offset)))


def _revoked(model: Model, me: Writer, partition: int) -> Writer:
    """`Pipeline._revoked`, `BatchProcessor.forget`: an open batch is dropped, the other partitions seek back."""
    me = me.at(partition, None)
    if not me.open:
        return me
    for other, position in enumerate(me.positions):
        if position is not None:
            to = position.committed
            fetch = to if Protection.SEEK_BACK in model.on else position.fetch
            me = me.at(other, Position(to, to, fetch))
    return me._replace(open=())


def _reads(model: Model, me: Writer) -> Iterator[Writer]:
    """`EventConsumer.poll`: any number of the next records of each partition, none too."""
    spans = [
        range(1) if position is None else range(position.fetch, end + 1)
        for position, end in zip(me.positions, model.stream.ends, strict=True)
    ]
    for ends in product(*spans):
        reading = me
        for partition, end in enumerate(ends):
            if (position := me.positions[partition]) is not None:
                for offset in range(position.fetch, end):
                    reading = _add(model, reading, partition, offset)
        yield reading


def _add(model: Model, me: Writer, partition: int, offset: int) -> Writer:
    """`BatchProcessor.add`."""
    position = me.positions[partition]
    assert position is not None
    if offset < position.next and Protection.SKIP_READ in model.on:
        return me.at(partition, position._replace(fetch=offset + 1))
    me = me.at(partition, Position(position.committed, offset + 1, offset + 1))
    return me._replace(open=(*me.open, (partition, offset)))


def _due(model: Model, scene: Scene) -> Iterator[Step]:
    """`BatchProcessor.due`, `encode_batch`: close the batch; ranges without rows go with it, or alone when idle."""
    me = scene.me
    ranges = tuple(
        Range(partition, position.committed, position.next)
        for partition, position in enumerate(me.positions)
        if position is not None and position.next > position.committed
    )
    if not ranges:
        return
    batch = Batch(ranges, me.open, scene.view.schema, must_commit=not me.open)
    in_hand = me._replace(phase=Phase.COMMITTING, open=(), batch=batch)
    for label, after in until_landed(model, scene.but(in_hand), scene.batch_id):
        yield f"batch {', '.join(f'{p}:[{start},{end})' for p, start, end in ranges)}, {label}", after


def _upkeep(model: Model, scene: Scene) -> Iterator[Step]:
    """`Upkeep.turn`, between batches only."""
    if scene.me.change is None:
        for label, change in rewriting.prepare(model, scene):
            yield label, scene.but(scene.me._replace(change=change))
    else:
        yield from until_landed(model, scene, scene.change_id)


def _named(records: tuple[Row, ...]) -> str:
    return ", ".join(f"{partition}:{offset}" for partition, offset in records)
