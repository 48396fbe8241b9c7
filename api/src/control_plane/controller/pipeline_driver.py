"""One pipeline's rounds: work its operation, then bring spec and connector closer to what they should be, and look.

A round asks how things are and does at most one thing about each, so it may be broken off anywhere and begun again by
anybody. What a driver keeps between rounds is only how patiently it tries again, and what it was refused last.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cdc_shared.connect.connect_client import ConnectorView
from cdc_shared.errors import CdcError, Transient
from cdc_shared.kafka.status_topic import Heard
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec
from control_plane.controller.backoff import BackOff
from control_plane.controller.conditions import (
    connector_condition,
    is_not,
    is_so,
    not_known,
    refused,
    writer_conditions,
)
from control_plane.controller.connector import FAILED, PAUSED, RUNNING, Move, next_move
from control_plane.controller.operation_worker import OperationWorker, Worked
from control_plane.controller.progress_watch import ProgressWatch
from control_plane.controller.rows import PipelineRow, Round
from control_plane.controller.systems import Systems
from control_plane.models.operation import OperationKind
from control_plane.models.pipeline import Condition, ConditionKind, ConditionStatus, Desired, Reason
from control_plane.repositories.operation_repo import OperationRecord
from control_plane.services.lifecycle import is_reached

LOOK_EVERY_S: Final = 5.0
"""At a pipeline that is as it should be."""
UNTOUCHED_S: Final = 30.0
"""At one that was never started: whoever starts it tells."""
IN_MOTION_S: Final = 0.4
"""At one that is on its way."""
PATIENCE: Final = 0.1
"""Of how long nothing has changed there: hundreds of pipelines may wait for a writer, which tells when it comes."""
STUCK_S: Final = 60.0
"""A connector that has neither run nor failed for so long is restarted."""
_OF_THE_NEW_SPEC: Final = frozenset({OperationKind.RESYNC, OperationKind.RESTART})
"""Operations that begin once the spec as it is now is in force: a collection that it adds can be resynced then."""

log = get_logger(__name__)


class NotLeader(Transient):
    """Another process may be the controller by now: nothing more is changed by this one."""


class PipelineDriver:
    """Blocks; its rounds come one after another, in any thread."""

    def __init__(
        self,
        systems: Systems,
        clock: Callable[[], float],
        rng: random.Random,
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        """`clock` is monotonic, in seconds; `is_leader` is asked before anything is changed."""
        self._systems = systems
        self._clock = clock
        self._is_leader = is_leader
        self._moves, self._restarts, self._publishing = (BackOff(rng) for _ in range(3))
        self._operations = OperationWorker(systems.operations, clock, rng)
        self._known: tuple[object, ...] = ()
        self._last_move: Move | None = None
        self._waiting_since: float | None = None
        self._refusals: dict[ConditionKind, Condition] = {}
        self._progress = ProgressWatch(clock)
        self._seen: list[tuple[object, ...]] = []
        self._seen_since = clock()

    def round(self, row: PipelineRow) -> Round:
        """Do what is next. Raises `NotLeader` when it may do nothing any more, else only what is a fault of ours."""
        self._check_leader()
        self._begin_anew_if_asked(row)
        worked = self._work(row)
        if not row.is_ours:
            return Round((), False, worked.again_in_s if row.operation else UNTOUCHED_S, worked.update)
        if not worked.holds_connector:
            self._drive(row)
        return self._look(row, worked)

    def _work(self, row: PipelineRow) -> Worked:
        if row.operation is None:
            return Worked(None, row.record.deleting, LOOK_EVERY_S)
        published = self._published(row)
        if self._must_wait(row, row.operation, published):
            return Worked(None, holds_connector=False, again_in_s=self._again_in_s())
        return self._operations.work(row, row.operation, published or row.spec)

    def _begin_anew_if_asked(self, row: PipelineRow) -> None:
        """What somebody has changed is tried at once, however long it had failed before."""
        record = row.record
        known = (record.id, record.version, record.desired_version, row.operation.id if row.operation else None)
        if known == self._known:
            return
        self._known = known
        self._refusals.clear()
        for each in (self._moves, self._restarts, self._publishing, self._operations):
            each.reset()
        self._last_move = self._waiting_since = None
        self._seen_since = self._clock()

    def _check_leader(self) -> None:
        if not self._is_leader():
            raise NotLeader("this process is not the controller any more")

    # -- what should be -----------------------------------------------------------------------------------------------

    def _drive(self, row: PipelineRow) -> None:
        """Writers first to start, so that they read from the first change on; they end last."""
        if row.desired is Desired.RUNNING:
            self._drive_spec(row)
            # One that writers have been refused changes no connector: it goes on under the spec before. But it does not
            # begin under that: it would note a place in what may be another source, and never snapshot the right one.
            spec = self._published(row)
            if spec is not None and spec.desired == "running":
                self._drive_connector(row, spec)
        elif self._drive_connector(row, self._published(row) or row.spec):
            self._drive_spec(row)

    def _drive_spec(self, row: PipelineRow) -> None:
        specs, now = self._systems.specs, self._clock()
        try:
            current = specs.current(row.name)
        except CdcError:  # as of the connector
            return
        wanted = wanted_spec(row, current)
        if wanted is not None and not is_same(current, wanted):
            if not self._publishing.is_due(now):
                return
            try:
                specs.publish(wanted, self._check_leader)
            except CdcError as error:
                self._fail(ConditionKind.SPEC_PUBLISHED, self._publishing, error)
                return
        self._publishing.went_well(now)
        self._refusals.pop(ConditionKind.SPEC_PUBLISHED, None)

    def _drive_connector(self, row: PipelineRow, spec: PipelineSpec) -> bool:
        """Whether the connector is as it should be."""
        try:
            view = self._systems.connectors.view(row.name)
        except CdcError:  # told by the look at the end of the round; nothing was tried, so nothing is waited for
            return False
        try:
            config = self._config(row, spec, view)
            move = next_move(row.desired, view, config)
            if move is Move.NONE:
                self._connector_is_right(row, view)
                return True
            if (
                move is Move.PAUSE
                and self._last_move is Move.PAUSE
                and view is not None
                and view.status.state == FAILED
            ):
                move = Move.RESTART  # a connector that has failed does not pause; begun anew, it begins paused
            if self._is_due(move):
                self._move(spec, move, config)
        except CdcError as error:
            self._fail(ConditionKind.CONNECTOR_RUNNING, self._moves, error)
        return False

    def _config(self, row: PipelineRow, spec: PipelineSpec, view: ConnectorView | None) -> Mapping[str, str] | None:
        """Return what the configuration should be. One that cannot be told disturbs no connector that runs."""
        if row.desired is Desired.STOPPED:
            return None
        try:
            return self._systems.setup.config(spec)
        except CdcError:
            if view is not None and view.status.state in (RUNNING, PAUSED):
                return None
            raise

    def _is_due(self, move: Move) -> bool:
        now = self._clock()
        if move is Move.WAIT:
            self._waiting_since = now if self._waiting_since is None else self._waiting_since
            return now - self._waiting_since >= STUCK_S
        self._waiting_since = None
        if move is Move.RESTART:
            # The first look at a failure may be of a state that a new configuration has ended already.
            if not self._restarts.failures:
                self._restarts.failed(now)
            return self._restarts.is_due(now)
        return self._moves.is_due(now)

    def _move(self, spec: PipelineSpec, move: Move, config: Mapping[str, str] | None) -> None:
        now = self._clock()
        if move is Move.WAIT:  # for too long
            self._waiting_since, move = now, Move.RESTART
        if move is Move.RESTART:
            self._restarts.failed(now)
        elif move is self._last_move:  # it was asked for before, and has not helped
            self._moves.failed(now)
        self._check_leader()
        if move in (Move.CREATE, Move.CREATE_STOPPED, Move.CONFIGURE, Move.RESUME):
            self._systems.setup.prepare(spec)
        log.info("connector is told", pipeline=spec.name, move=str(move))
        self._systems.connectors.move(spec.name, move, config)
        self._last_move = move
        self._refusals.pop(ConditionKind.CONNECTOR_RUNNING, None)

    def _connector_is_right(self, row: PipelineRow, view: ConnectorView | None) -> None:
        now = self._clock()
        self._moves.went_well(now)
        self._restarts.went_well(now)
        self._last_move = self._waiting_since = None
        self._refusals.pop(ConditionKind.CONNECTOR_RUNNING, None)
        if view is not None and row.desired is Desired.RUNNING:
            self._systems.setup.settled(row.name, view.config)

    def _fail(self, kind: ConditionKind, backoff: BackOff, error: CdcError) -> None:
        if isinstance(error, NotLeader):
            raise error
        backoff.failed(self._clock(), is_outage=isinstance(error, Transient))
        self._refusals[kind] = refused(kind, error)

    def _published(self, row: PipelineRow) -> PipelineSpec | None:
        """Return the spec that writers have, with the version of its rules; None too when that cannot be told."""
        try:
            return self._systems.specs.current(row.name)
        except CdcError:
            return None

    def _must_wait(self, row: PipelineRow, operation: OperationRecord, published: PipelineSpec | None) -> bool:
        """Whether the operation is for a pipeline that is not yet, or no longer, as it has to be for that."""
        if operation.kind is OperationKind.RESYNC and row.desired is not Desired.RUNNING:
            return not (operation.memory and operation.holds_connector)
        is_new = not operation.memory
        return is_new and operation.kind in _OF_THE_NEW_SPEC and not self._is_in_force(row, published)

    def _is_in_force(self, row: PipelineRow, published: PipelineSpec | None) -> bool:
        """Whether writers have the spec as people want it, and the connector its configuration."""
        wanted = wanted_spec(row, published)
        if published is None or wanted is None or not is_same(published, wanted):
            return False
        try:
            view = self._systems.connectors.view(row.name)
            return view is not None and dict(view.config) == dict(self._systems.setup.config(published))
        except CdcError:
            return False

    # -- how it is ----------------------------------------------------------------------------------------------------

    def _look(self, row: PipelineRow, worked: Worked) -> Round:
        connector = self._connector(row)
        published, spec = self._spec(row)
        writers = self._systems.writers
        heard = writers.reports(row.name)
        writer, resync_needed = writer_conditions(heard, writers.trouble)
        found = (
            connector,
            spec,
            writer,
            resync_needed,
            *self._systems.sources.conditions(published or row.spec),
            *self._progressing(row, heard, connector, writer),
        )
        self._note(found)
        is_right = not worked.holds_connector and is_reached(dataclasses.replace(row.record, conditions=found))
        again_in_s = LOOK_EVERY_S if is_right else self._again_in_s()
        if row.operation is not None:
            again_in_s = worked.again_in_s if worked.holds_connector else min(worked.again_in_s, again_in_s)
        return Round(
            found,
            is_right,
            again_in_s,
            worked.update,
            is_published=is_same(published, row.spec, whatever_is_desired=True),
            rules_version=published.quality.version if published is not None else None,
        )

    def _progressing(self, row: PipelineRow, heard: Sequence[Heard], *running: Condition) -> Sequence[Condition]:
        if row.desired is not Desired.RUNNING or any(each.status is not ConditionStatus.TRUE for each in running):
            self._progress.begin_anew()
            return ()
        found = self._progress.condition(heard, row.spec.watermark.interval_s)
        return () if found is None else (found,)

    def _connector(self, row: PipelineRow) -> Condition:
        kind = ConditionKind.CONNECTOR_RUNNING
        try:
            seen = connector_condition(self._systems.connectors.view(row.name))
        except CdcError as error:
            return not_known(kind, str(error))
        return self._refusals.get(kind, seen) if seen.status is not ConditionStatus.TRUE else seen

    def _spec(self, row: PipelineRow) -> tuple[PipelineSpec | None, Condition]:
        kind = ConditionKind.SPEC_PUBLISHED
        try:
            published = self._systems.specs.current(row.name)
        except CdcError as error:
            return None, not_known(kind, str(error))
        wanted = wanted_spec(row, published)
        if wanted is None:
            return None, is_so(kind, "NotNeeded", "a stopped pipeline that no writer knows of")
        if is_same(published, wanted):
            return published, is_so(kind, "Published", "the writers have the spec")
        if kind in self._refusals:
            return published, self._refusals[kind]
        if published is None:
            return None, is_not(kind, Reason.ABSENT, "the writers know nothing of the pipeline")
        return published, is_not(kind, "Outdated", "the writers have another spec")

    def _note(self, found: Sequence[Condition]) -> None:
        seen: list[tuple[object, ...]] = [(each.kind, each.status, each.reason) for each in found]
        if seen != self._seen:
            self._seen, self._seen_since = seen, self._clock()

    def _again_in_s(self) -> float:
        now = self._clock()
        waits = [each.not_before - now for each in (self._moves, self._restarts, self._publishing)]
        return min(max([IN_MOTION_S, PATIENCE * (now - self._seen_since), *waits]), LOOK_EVERY_S)


def wanted_spec(row: PipelineRow, current: PipelineSpec | None) -> PipelineSpec | None:
    """What should be published; None: nothing need be. `current` is what is.

    To stop, only that is said: a change of the spec that came meanwhile, and might be refused, goes out at the start.
    """
    if row.desired is not Desired.STOPPED:
        return row.spec.model_copy(update={"desired": "running"})
    return None if current is None else current.model_copy(update={"desired": "stopped"})


def is_same(published: PipelineSpec | None, wanted: PipelineSpec, *, whatever_is_desired: bool = False) -> bool:
    """Whether they say the same; the version of the rules is counted when they are published."""
    if published is None:
        return False
    desired = wanted.desired if whatever_is_desired else published.desired
    return _uncounted(published.model_copy(update={"desired": desired})) == _uncounted(wanted)


def _uncounted(spec: PipelineSpec) -> PipelineSpec:
    return spec.model_copy(update={"quality": spec.quality.model_copy(update={"version": 0})})
