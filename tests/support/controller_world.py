"""Everything outside of the controller, simulated: Kafka Connect, topics, writers, tables, on a clock of its own.

Every call may fail (before or after it took effect), connectors take their time and fall over, and strangers meddle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid4

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView, TaskStatus
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.status_topic import CollectionReport, Heard, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.models.common import PipelineSpec
from control_plane.controller.connector import Move
from control_plane.controller.operations.delete import DeleteOperation
from control_plane.controller.operations.restart import RestartOperation
from control_plane.controller.rows import PipelineRow, Round
from control_plane.controller.systems import Systems
from control_plane.models.operation import Operation, OperationKind, OperationState
from control_plane.models.pipeline import Condition, Desired, PipelineConfig, PipelineRecord, State
from control_plane.repositories.operation_repo import OperationRecord
from control_plane.services.lifecycle import state_of

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
SLOWNESS_S: Final = 1.5
"""What Connect and writers take at most to do what they were told."""


class Crash(BaseException):
    """The process of the controller has ended here."""


@dataclass
class FakeConnector:
    """`told` is what it should be, `state` and `tasks` what Connect reports."""

    config: dict[str, str]
    told: str
    state: str = "UNASSIGNED"
    tasks: list[str] = field(default_factory=list)
    changes_at: float = 0.0


class World:
    """Implements every interface in `systems`, `delete.Published` and `delete.Remains`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.failure_rate = 0.0
        self.crash_rate = 0.0
        self.connectors: dict[str, FakeConnector] = {}
        self.offsets: dict[str, int] = {}
        self.topics: set[str] = set()
        self.secrets: set[str] = set()
        self.specs: dict[str, PipelineSpec] = {}
        self.writer_states: dict[str, PipelineState] = {}
        self._writer_changes_at: dict[str, float] = {}
        self.tables_of: dict[str, list[str]] = {}
        self.heartbeats: set[str] = set()
        self.rules: set[str] = set()
        self.calls: list[str] = []
        self.refused_specs: set[str] = set()
        """Databases whose specs `publish` refuses."""
        self.frozen_writers: set[str] = set()
        """Pipelines whose writers stay in the state that they are in."""
        self.connect_is_away = False
        self.collections: tuple[CollectionReport, ...] = ()
        """What the writer says of them."""

    def clock(self) -> float:
        return self.now

    def systems(self) -> Systems:
        connect = FakeClients(self)
        return Systems(
            self,
            self,
            self,
            self,
            self,
            {
                OperationKind.RESTART: RestartOperation(connect, self),  # type: ignore[arg-type]
                OperationKind.DELETE: DeleteOperation(connect, self, self, self),  # type: ignore[arg-type]
            },
        )

    def call(self, what: str, *, changes: bool = True) -> None:
        """One call: it may fail, or the process may end, before it has any effect."""
        if changes:
            self.calls.append(what)
        if self.rng.random() < self.crash_rate:
            raise Crash
        if self.rng.random() < self.failure_rate:
            raise Transient(f"{what}: away")

    def took_effect(self, what: str) -> None:
        """The same once it has: the answer is lost."""
        if self.rng.random() < self.crash_rate:
            raise Crash
        if self.rng.random() < self.failure_rate:
            raise Transient(f"{what}: no answer")

    def took_effect_or_crashed(self) -> None:
        """The end of a round: what it found may never be stored."""
        if self.rng.random() < self.crash_rate:
            raise Crash

    def advance(self, seconds: float) -> None:
        """Let time pass: whoever was told something does it."""
        self.now += seconds
        for name, connector in list(self.connectors.items()):  # a test may let time pass while others act
            if self.now >= connector.changes_at:
                self._settle(name, connector)
        for name in {*self.specs, *self.writer_states} - self.frozen_writers:
            self._follow_spec(name)

    def _settle(self, name: str, connector: FakeConnector) -> None:
        if connector.state == "FAILED":
            return
        connector.state = connector.told
        if connector.told == "STOPPED":
            connector.tasks = []
        elif "FAILED" not in connector.tasks:
            connector.tasks = [connector.told]
        if connector.told == "RUNNING":
            self.offsets[name] = self.offsets.get(name, 0) + 1
            self.topics.add(name)

    def _follow_spec(self, name: str) -> None:
        """The writer: it takes up what is published, after a while."""
        spec = self.specs.get(name)
        wanted = None if spec is None else PipelineState.RUNNING if spec.desired == "running" else PipelineState.STOPPED
        if self.writer_states.get(name) is wanted:
            self._writer_changes_at.pop(name, None)
        elif self.now >= self._writer_changes_at.setdefault(name, self.now + self.rng.uniform(0, SLOWNESS_S)):
            if wanted is None:
                del self.writer_states[name]
            else:
                self.writer_states[name] = wanted
                self.heartbeats.add(name)
                self.tables_of.setdefault(name, [f"{name}/items"])

    # -- Connectors ---------------------------------------------------------------------------------------------------

    def view(self, name: str) -> ConnectorView | None:
        self.call(f"view {name}", changes=False)
        self._reach_connect()
        connector = self.connectors.get(name)
        return None if connector is None else ConnectorView(dict(connector.config), status_of(name, connector))

    def _reach_connect(self) -> None:
        if self.connect_is_away:
            raise Transient("Kafka Connect is away")

    def move(self, name: str, move: Move, config: Mapping[str, str] | None) -> None:
        self.call(f"{move} {name}")
        self._reach_connect()
        match move:
            case Move.CREATE | Move.CONFIGURE:
                assert config
                if name in self.connectors:
                    self.connectors[name].config = dict(config)
                    self.tell(name, self.connectors[name].told)
                else:
                    self.connectors[name] = FakeConnector(dict(config), "RUNNING")
                    self.tell(name, "RUNNING")
            case Move.CREATE_STOPPED:
                assert config
                self.connectors[name] = FakeConnector(dict(config), "STOPPED")
                self.tell(name, "STOPPED")
            case Move.RESUME:
                self.tell(name, "RUNNING")
            case Move.PAUSE:
                self.tell(name, "PAUSED")
            case Move.STOP:
                self.tell(name, "STOPPED")
            case Move.RESTART:
                self.restart(name)
        self.took_effect(f"{move} {name}")

    def tell(self, name: str, told: str) -> None:
        """Its tasks take a while to follow."""
        connector = self.connectors.get(name)
        if connector is None:
            raise Fatal(f"no connector {name}")
        connector.told = told
        if connector.state != "FAILED" or told == "STOPPED":  # a failed one can be stopped, and nothing else
            connector.state = told if told != "RUNNING" else "UNASSIGNED"
        connector.changes_at = self.now + self.rng.uniform(0, SLOWNESS_S)

    def restart(self, name: str) -> None:
        connector = self.connectors.get(name)
        if connector is None:
            raise Fatal(f"no connector {name}")
        connector.state, connector.tasks = "RESTARTING", []
        connector.changes_at = self.now + self.rng.uniform(0, SLOWNESS_S)

    # -- ConnectorSetup -----------------------------------------------------------------------------------------------

    def config(self, spec: PipelineSpec) -> Mapping[str, str]:
        self.call(f"config {spec.name}", changes=False)
        self.secrets.add(spec.name)
        return {"database": spec.source.database, "collections": ",".join(spec.source.include_collections)}

    def prepare(self, spec: PipelineSpec) -> None:
        self.call(f"topics {spec.name}")
        self.topics.add(spec.name)

    def settled(self, name: str, config: Mapping[str, str]) -> None:
        pass

    # -- Specs --------------------------------------------------------------------------------------------------------

    def current(self, name: str) -> PipelineSpec | None:
        self.call(f"spec {name}", changes=False)
        return self.specs.get(name)

    def publish(self, spec: PipelineSpec, check: Callable[[], None] = lambda: None) -> PipelineSpec:
        check()
        self.call(f"publish {spec.name}")
        if spec.source.database in self.refused_specs and spec.desired == "running":
            raise Fatal("these rules would give every row another key")
        quality = spec.quality.model_copy(update={"version": 3})
        self.specs[spec.name] = spec.model_copy(update={"quality": quality})
        self.took_effect(f"publish {spec.name}")
        return self.specs[spec.name]

    def withdraw(self, name: str) -> None:
        self.call(f"withdraw {name}")
        self.specs.pop(name, None)
        self.took_effect(f"withdraw {name}")

    # -- Writers ------------------------------------------------------------------------------------------------------

    trouble: str | None = None

    def reports(self, pipeline: str) -> Sequence[Heard]:
        state = self.writer_states.get(pipeline)
        if state is None:
            return ()
        report = WriterReport(pipeline=pipeline, state=state, at_ms=0, writer="w", collections=self.collections)
        return (Heard(report, 0.0, is_silent=False),)

    # -- Sources ------------------------------------------------------------------------------------------------------

    def conditions(self, spec: PipelineSpec) -> Sequence[Condition]:
        return ()

    # -- Remains ------------------------------------------------------------------------------------------------------

    def remove_secrets(self, name: str) -> None:
        self.call(f"remove secrets {name}")
        self.secrets.discard(name)

    def writers(self, name: str) -> list[str]:
        self.call(f"writers {name}", changes=False)
        return ["w"] if self.writer_states.get(name) is PipelineState.RUNNING else []

    def tables(self, spec: PipelineSpec) -> list[str]:
        self.call(f"tables {spec.name}", changes=False)
        return list(self.tables_of.get(spec.name, []))

    def remove_table(self, url: str) -> bool:
        self.call(f"drop {url}")
        name = url.partition("/")[0]
        assert self.writer_states.get(name) is not PipelineState.RUNNING, "a table is dropped under its writer"
        is_done = self.rng.random() < 0.5
        if is_done:
            self.tables_of[name] = [each for each in self.tables_of.get(name, []) if each != url]
        return is_done

    def remove_dead_letters(self, spec: PipelineSpec) -> bool:
        self.call(f"drop letters {spec.name}")
        return True

    def remove_reconciliation_reports(self, spec: PipelineSpec) -> bool:
        self.call(f"drop reports {spec.name}")
        return True

    def remove_topics(self, spec: PipelineSpec) -> None:
        self.call(f"drop topics {spec.name}")
        assert spec.name not in self.connectors, "the topics of a connector that is there are removed"
        self.topics.discard(spec.name)

    def remove_group(self, name: str) -> None:
        self.call(f"drop group {name}")

    def remove_heartbeat(self, spec: PipelineSpec) -> None:
        self.call(f"drop heartbeat {spec.name}")
        self.heartbeats.discard(spec.name)

    def forget_reports(self, name: str) -> None:
        self.call(f"forget reports {name}")

    def forget_rules(self, name: str) -> None:
        self.call(f"forget rules {name}")


class FakeClients:
    """What operations open as a `ConnectClient`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def is_somebody_elses(self, name: str) -> bool:
        self._world.view(name)  # which may fail
        return False

    def status(self, name: str) -> ConnectorStatus | None:
        view = self._world.view(name)
        return None if view is None else view.status

    def create_stopped(self, name: str, config: Mapping[str, str]) -> None:
        self._world.move(name, Move.CREATE_STOPPED, config)

    def stop(self, name: str, timeout_s: float) -> None:
        world = self._world
        connector = world.connectors.get(name)
        if connector is None or connector.told != "STOPPED" or connector.state == "FAILED":
            world.move(name, Move.STOP, None)
        world.advance(world.rng.uniform(0, min(timeout_s, 2 * SLOWNESS_S)))  # it waits for the tasks
        if world.connectors[name].tasks:
            raise Transient("it has not stopped yet")

    def forget_offsets(self, name: str, timeout_s: float) -> None:
        world = self._world
        world.call(f"forget {name}")
        connector = world.connectors.get(name)
        if connector is None or connector.state != "STOPPED" or connector.tasks:
            raise Fatal("only a stopped connector forgets")
        world.offsets.pop(name, None)
        world.took_effect(f"forget {name}")

    def delete(self, name: str) -> bool:
        world = self._world
        world.call(f"delete {name}")
        found = world.connectors.pop(name, None)
        world.took_effect(f"delete {name}")
        return found is not None

    def restart(self, name: str, *, only_failed: bool) -> None:
        self._world.call(f"restart {name}")
        self._world.restart(name)


def status_of(name: str, connector: FakeConnector) -> ConnectorStatus:
    tasks = tuple(TaskStatus(n, state, "boom" if state == "FAILED" else "") for n, state in enumerate(connector.tasks))
    return ConnectorStatus(name, connector.state, "boom" if connector.state == "FAILED" else "", tasks)


class Desk:
    """Postgres: one pipeline's row, changed by people and stored by the controller."""

    def __init__(self, world: World, name: str = "shop") -> None:
        self.world = world
        config = PipelineConfig.model_validate({"name": name, "source": {"connection": "env:X", "database": "db"}})
        self.record: PipelineRecord | None = PipelineRecord(
            name=name,
            id=uuid4(),
            spec=config.stored(),
            version=1,
            desired=Desired.STOPPED,
            desired_version=0,
            desired_since=EPOCH,
            started=False,
            deleting=False,
            created_at=EPOCH,
            created_by="",
            updated_at=EPOCH,
            updated_by="",
        )
        self.operations: list[OperationRecord] = []
        self.finished: dict[UUID, tuple[OperationState, str]] = {}

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.world.now)

    def want(self, desired: Desired) -> None:
        assert self.record is not None
        self.record = replace(
            self.record,
            desired=desired,
            desired_version=self.record.desired_version + 1,
            started=self.record.started or desired is Desired.RUNNING,
        )

    def change(self, **source: Any) -> None:
        """Replace parts of the spec's source."""
        assert self.record is not None
        spec = {**self.record.spec, "source": {**self.record.spec["source"], **source}}
        self.record = replace(self.record, spec=spec, version=self.record.version + 1)

    def ask(self, kind: OperationKind, **arguments: Any) -> UUID:
        assert self.record is not None
        asked = OperationRecord(uuid4(), self.record.name, self.record.id, kind, arguments, 0, {}, True, None)
        if kind is OperationKind.DELETE:
            self.want(Desired.STOPPED)
            self.record = replace(self.record, deleting=True)
            self.operations.clear()
        self.operations.append(asked)
        return asked.id

    def load(self) -> PipelineRow | None:
        if self.record is None:
            return None
        spec = PipelineConfig.model_validate(self.record.spec).spec()
        return PipelineRow(self.record, spec, self.operations[0] if self.operations else None)

    def save(self, row: PipelineRow, result: Round) -> None:
        """As `ControllerStore.save`."""
        assert self.record is not None
        if row.is_ours:
            found = {
                "reached_version": row.record.desired_version if result.is_reached else None,
                "published_version": row.record.version if result.is_published else None,
                "rules_version": result.rules_version if result.is_published else None,
            }
            known: Any = {key: value for key, value in found.items() if value is not None}
            self.record = replace(self.record, conditions=result.conditions, observed_at=self.now(), **known)
        update, operation = result.operation, row.operation
        if update is None or operation is None or operation not in self.operations:
            return
        if update.state is not OperationState.RUNNING:
            self.operations.remove(operation)
            self.finished[operation.id] = (update.state, update.error or update.message)
            if update.removes_pipeline:
                self.record = None
            return
        at = self.operations.index(operation)
        if update.memory is None:
            self.operations[at] = replace(operation, attempts=operation.attempts + 1)
        else:
            self.operations[at] = replace(
                operation, attempts=0, memory=dict(update.memory), holds_connector=update.holds_connector
            )

    def state(self) -> State | None:
        """What people see; None when the pipeline is gone."""
        if self.record is None:
            return None
        operations = tuple(
            Operation(
                id=each.id,
                pipeline=each.pipeline,
                kind=each.kind,
                arguments={},
                state=OperationState.RUNNING,
                requested_by="",
                requested_at=EPOCH,
            )
            for each in self.operations
        )
        return state_of(replace(self.record, operations=operations), self.now())
