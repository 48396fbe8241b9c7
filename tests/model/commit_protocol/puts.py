"""What may become of a put (`DeltaWriter._append`, `DeltaLog.append`)."""

from __future__ import annotations

from collections.abc import Iterator

from commit_protocol.commits import catch_up, heard
from commit_protocol.memory import Phase, Scene, Step, Writer
from commit_protocol.model import Model
from commit_protocol.protections import Protection
from commit_protocol.store import Put, landing


def outcomes(model: Model, scene: Scene) -> Iterator[Step]:
    """The store takes the entry or refuses it, now, later or never; the writer hears of it or not."""
    me = scene.me
    assert me.put is not None
    version, entry = me.put
    waiting = Phase.COMMITTING if entry.commit_id == scene.batch_id else Phase.POLLING
    unheard = me._replace(phase=waiting, put=None)
    store = landing(model, scene.store, me.put)
    if store is not None:
        there = Scene(store, unheard, scene.number)
        answered = unheard._replace(
            snapshot=scene.view.apply(entry), must_look=False, old=False, unanswered=me.unanswered - {entry.commit_id}
        )
        yield f"version {version} lands", heard(there.but(answered), entry.commit_id)
        yield f"! version {version} lands, the answer is lost", there
    elif Protection.CATCH_UP not in model.on:
        yield f"version {version} is refused", scene.but(unheard._replace(must_look=False))
    elif Protection.PLAN_ANEW not in model.on:
        yield f"version {version} is refused", scene.but(_same_again(model, scene, unheard))
    else:
        yield f"version {version} is refused", scene.but(unheard)
    yield f"! version {version} is never sent", scene.but(unheard)
    if version == scene.table.version + 1 and len(scene.store.in_flight) < model.delays:
        late = scene.store.with_late(me.put)
        yield f"! version {version} is under way for long", Scene(late, unheard, scene.number)


def _same_again(model: Model, scene: Scene, unheard: Writer) -> Writer:
    """The mistake that PLAN_ANEW is there against: the same actions, one version on."""
    me = catch_up(model, scene)
    assert me.put is not None
    assert me.snapshot is not None
    entry, table = me.put.entry, me.snapshot
    if entry.commit_id in me.landed or any(table.offsets[p] != start for p, start, _ in entry.ranges):
        return unheard
    return me._replace(put=Put(table.version + 1, entry), must_look=True)
