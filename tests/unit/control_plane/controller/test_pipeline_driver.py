"""Rounds bring every pipeline where it should be: through failures of every call, crashes, and meddling."""

from __future__ import annotations

import random

import msgspec
import pytest
from controller_world import Crash, Desk, FakeClients, FakeConnector, World

from cdc_shared.errors import Transient
from cdc_shared.kafka.status_topic import CollectionReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from control_plane.controller.pipeline_driver import IN_MOTION_S, LOOK_EVERY_S, STUCK_S, NotLeader, PipelineDriver
from control_plane.controller.rows import PipelineRow, Round
from control_plane.models.operation import OperationKind, OperationState
from control_plane.models.pipeline import ConditionKind, Desired, State

pytestmark = pytest.mark.unit

STRANGER = "somebody-elses"
CALM_S = 300.0
CHAOS_S = 120.0
CHAOTIC_RUNS = 60


class Simulation:
    """One pipeline, its rounds, and the world around it."""

    def __init__(self, seed: float) -> None:
        self.rng = random.Random(seed)
        self.world = World(self.rng)
        self.world.connectors[STRANGER] = FakeConnector({"x": "y"}, "RUNNING")
        self.desk = Desk(self.world)
        self.driver = self.new_driver()
        self.rounds = 0

    def new_driver(self) -> PipelineDriver:
        return PipelineDriver(self.world.systems(), self.world.clock, self.rng)

    def run(self, seconds: float) -> None:
        """Rounds for a while. One that its process does not outlive is begun again by another process."""
        ends_at = self.world.now + seconds
        while self.world.now < ends_at:
            row, wait_s = self.desk.load(), 1.0
            if row is not None:
                try:
                    wait_s = self._round(row)
                except Crash:
                    self.driver = self.new_driver()
            self.world.advance(min(max(wait_s, 0.05), ends_at - self.world.now))

    def _round(self, row: PipelineRow) -> float:
        result = self.driver.round(row)
        self.rounds += 1
        self._check(row, result)
        self.world.took_effect_or_crashed()
        self.desk.save(row, result)
        return result.again_in_s

    def _check(self, row: PipelineRow, result: Round) -> None:
        """What must hold whenever the API would say so."""
        assert not [call for call in self.world.calls if STRANGER in call]
        connector, writer = self.world.connectors.get("shop"), self.world.writer_states.get("shop")
        if not result.is_reached:
            return
        if row.desired is Desired.RUNNING:
            assert connector is not None
            assert connector.tasks == ["RUNNING"]
            assert writer is PipelineState.RUNNING
        else:
            assert connector is None or "RUNNING" not in connector.tasks
            assert row.desired is Desired.PAUSED or writer is not PipelineState.RUNNING

    def run_until(self, state: State | None, seconds: float = CALM_S) -> None:
        ends_at = self.world.now + seconds
        while self.desk.state() is not state:
            assert self.world.now < ends_at, f"{self.desk.state()}, not {state}: {self.desk.record}"
            self.run(0.5)

    def start(self) -> Simulation:
        self.desk.want(Desired.RUNNING)
        self.run_until(State.RUNNING)
        return self

    def condition(self, kind: ConditionKind) -> tuple[str, str]:
        assert self.desk.record is not None
        found = self.desk.record.condition(kind)
        assert found is not None
        return found.status, found.reason


@pytest.fixture
def simulation(rng: random.Random) -> Simulation:
    return Simulation(rng.random())


@pytest.mark.parametrize("run", range(CHAOTIC_RUNS))
def test_whatever_fails_the_pipeline_becomes_what_was_asked_for_last(run: int, rng: random.Random) -> None:
    """Calls fail before and after their effect, the controller is killed, and people change their minds."""
    simulation = Simulation(rng.random())
    world, desk = simulation.world, simulation.desk
    world.failure_rate, world.crash_rate = rng.choice([0.0, 0.1, 0.4]), rng.choice([0.0, 0.05, 0.2])
    desk.want(Desired.RUNNING)
    ends_at = world.now + CHAOS_S
    while world.now < ends_at:
        simulation.run(rng.uniform(0.1, 15))
        if rng.random() < 0.5:
            desk.want(rng.choice(list(Desired)))
        if rng.random() < 0.3:
            meddle(world, rng)
        if rng.random() < 0.2:
            desk.ask(OperationKind.RESTART)
    world.failure_rate = world.crash_rate = 0.0
    last = rng.choice([*Desired, "deleted"])
    if last == "deleted":
        keeps = {"keep_tables": rng.random() < 0.5, "keep_offsets": False}
        desk.ask(OperationKind.DELETE, **keeps)
        simulation.run_until(None)
        check_gone(world, **keeps)
        return
    desk.operations.clear()
    desk.want(last)
    simulation.run_until({"running": State.RUNNING, "paused": State.PAUSED, "stopped": State.STOPPED}[last])
    rounds = simulation.rounds
    simulation.run(10 * LOOK_EVERY_S)
    assert simulation.rounds - rounds <= 12, "a pipeline that is as it should be is looked at too often"


@pytest.mark.parametrize("run", range(CHAOTIC_RUNS))
def test_a_deletion_ends_however_often_it_is_interrupted(run: int, rng: random.Random) -> None:
    simulation = Simulation(rng.random()).start()
    world, desk = simulation.world, simulation.desk
    world.failure_rate, world.crash_rate = rng.choice([0.0, 0.2]), rng.choice([0.05, 0.2])
    keeps = {"keep_tables": rng.random() < 0.5, "keep_offsets": rng.random() < 0.5}
    asked = desk.ask(OperationKind.DELETE, **keeps)
    world.calls.clear()
    if rng.random() < 0.3:
        del world.connectors["shop"]
    simulation.run(CHAOS_S)
    world.failure_rate = world.crash_rate = 0.0
    simulation.run_until(None)
    assert desk.finished[asked][0] is OperationState.SUCCEEDED
    assert not [call for call in world.calls if call.startswith(("resume", "create shop", "publish"))]
    check_gone(world, **keeps)


def meddle(world: World, rng: random.Random) -> None:
    """Somebody does something behind the controller's back, or something breaks."""
    connector = world.connectors.get("shop")
    match rng.randrange(6):
        case 0:
            world.connectors.pop("shop", None)
        case 1 if connector is not None:
            connector.config = {"database": "another"}
        case 2 if connector is not None and connector.tasks:
            connector.tasks = ["FAILED"]
        case 3 if connector is not None:
            connector.state = "FAILED"
        case 4 if connector is not None:
            world.tell("shop", rng.choice(["RUNNING", "PAUSED", "STOPPED"]))
        case _:
            world.specs.pop("shop", None)


def check_gone(world: World, *, keep_tables: bool, keep_offsets: bool) -> None:
    assert "shop" not in world.connectors
    assert "shop" not in world.specs
    assert "shop" not in world.secrets
    assert "shop" not in world.heartbeats
    assert ("shop" in world.offsets) is keep_offsets
    assert ("shop" in world.topics) is keep_offsets
    assert bool(world.tables_of["shop"]) is keep_tables
    assert ("forget rules shop" in world.calls) is not keep_tables


def test_what_was_never_started_is_left_alone(simulation: Simulation) -> None:
    simulation.world.connectors["shop"] = FakeConnector({"of": "somebody else"}, "RUNNING")
    simulation.run(CALM_S)
    assert simulation.world.calls == []
    simulation.desk.ask(OperationKind.DELETE)
    simulation.run_until(None)
    assert "shop" in simulation.world.connectors
    assert simulation.world.calls == []


def test_a_failed_task_is_restarted_with_growing_patience(simulation: Simulation) -> None:
    simulation.start()
    world = simulation.world
    world.calls.clear()
    ends_at = world.now + 600
    while world.now < ends_at:  # it never runs for longer than a second
        connector = world.connectors["shop"]
        if connector.tasks == ["RUNNING"]:
            connector.tasks = ["FAILED"]
        simulation.run(1.0)
    restarts = world.calls.count("restart shop")
    assert 8 <= restarts <= 25, restarts
    assert simulation.condition(ConditionKind.CONNECTOR_RUNNING) == ("false", "Failed")
    assert simulation.desk.state() is State.FAILED
    simulation.run_until(State.RUNNING)


def test_a_connector_that_neither_runs_nor_fails_is_restarted(simulation: Simulation) -> None:
    simulation.start()
    connector = simulation.world.connectors["shop"]
    connector.state, connector.tasks, connector.changes_at = "RUNNING", [], float("inf")
    simulation.world.calls.clear()
    simulation.run(STUCK_S - 10)
    assert "restart shop" not in simulation.world.calls
    simulation.run_until(State.RUNNING, 2 * STUCK_S)
    assert simulation.world.calls.count("restart shop") == 1


def test_a_refused_spec_changes_nothing_and_keeps_nobody_from_stopping(simulation: Simulation) -> None:
    simulation.start()
    config = dict(simulation.world.connectors["shop"].config)
    simulation.desk.change(database="forbidden")
    simulation.world.refused_specs.add("forbidden")
    simulation.run_until(State.FAILED)
    assert simulation.condition(ConditionKind.SPEC_PUBLISHED) == ("false", "Refused")
    assert simulation.world.connectors["shop"].config == config
    simulation.desk.want(Desired.STOPPED)
    simulation.run_until(State.STOPPED)
    assert simulation.world.specs["shop"].source.database == "db"


def test_a_connector_does_not_begin_under_the_spec_of_before(simulation: Simulation) -> None:
    """Of a pipeline that was reset, so that its database could be changed: it would note a place in the wrong source,
    and never snapshot the right one."""
    simulation.start()
    simulation.desk.want(Desired.STOPPED)
    simulation.run_until(State.STOPPED)
    simulation.world.offsets.clear()
    simulation.desk.change(database="forbidden")
    simulation.world.refused_specs.add("forbidden")
    simulation.desk.want(Desired.RUNNING)
    simulation.run_until(State.FAILED)
    simulation.run(60)
    assert "shop" not in simulation.world.offsets
    simulation.world.refused_specs.clear()
    simulation.desk.change(database="other")
    simulation.run_until(State.RUNNING)
    assert simulation.world.connectors["shop"].config["database"] == "other"


def test_what_is_waited_for_long_is_looked_at_less_often(simulation: Simulation) -> None:
    """A writer that comes tells so by itself; hundreds of pipelines may wait for it."""
    simulation.start()
    simulation.world.writer_states["shop"] = PipelineState.RETRYING
    simulation.world.frozen_writers.add("shop")
    rounds = simulation.rounds
    simulation.run(600)
    assert simulation.rounds - rounds <= 600 / LOOK_EVERY_S + 40
    simulation.world.frozen_writers.clear()
    simulation.run_until(State.RUNNING, LOOK_EVERY_S + 2)


def test_a_resync_that_waits_for_the_start_keeps_nobody_busy(simulation: Simulation) -> None:
    simulation.start()
    simulation.desk.want(Desired.STOPPED)
    simulation.run_until(State.STOPPED)
    simulation.desk.ask(OperationKind.RESYNC)
    rounds = simulation.rounds
    simulation.run(600)
    assert simulation.rounds - rounds <= 600 / LOOK_EVERY_S + 40


def test_a_forced_deletion_waits_for_kafka_connect(simulation: Simulation) -> None:
    """It waits in any case, to delete the connector. Offsets left behind would keep a pipeline made again under this
    name from its snapshot."""
    simulation.start()
    simulation.world.connect_is_away = True
    simulation.desk.ask(OperationKind.DELETE, keep_tables=False, force=True)
    simulation.run(CALM_S)
    simulation.world.connect_is_away = False
    simulation.run_until(None)
    assert "shop" not in simulation.world.offsets


def test_a_forced_deletion_does_without_offsets_that_cannot_be_forgotten(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.start()

    def never(client: object, name: str, timeout_s: float) -> None:
        raise Transient("it has not stopped yet")

    monkeypatch.setattr(FakeClients, "stop", never)
    asked = simulation.desk.ask(OperationKind.DELETE, keep_tables=False, force=True)
    simulation.run_until(None)
    assert "the connector's offsets" in simulation.desk.finished[asked][1]


def test_a_pipeline_in_which_nothing_moves_is_not_said_to_run(simulation: Simulation) -> None:
    """Its task says RUNNING and hangs; a quiet source moves the watermark."""
    simulation.start()
    world = simulation.world

    def minutes(number: int, *, moves: bool) -> None:
        for _ in range(number):
            simulation.run(60)
            if moves:
                (report,) = world.collections
                world.collections = (msgspec.structs.replace(report, watermark_ms=(report.watermark_ms or 0) + 60_000),)

    world.collections = (CollectionReport(database="db", collection="items", topic="shop.db.items"),)
    minutes(10, moves=False)
    assert simulation.desk.state() is State.RUNNING, "a snapshot may take its time"
    minutes(10, moves=True)
    assert simulation.condition(ConditionKind.PROGRESSING) == ("true", "Moves")
    minutes(6, moves=False)
    assert simulation.condition(ConditionKind.PROGRESSING) == ("false", "Stalled")
    assert simulation.desk.state() is State.DEGRADED
    minutes(1, moves=True)
    simulation.run_until(State.RUNNING, 2 * LOOK_EVERY_S)

    simulation.desk.want(Desired.PAUSED)
    simulation.run_until(State.PAUSED)
    minutes(10, moves=False)
    assert simulation.desk.state() is State.PAUSED
    simulation.desk.want(Desired.RUNNING)
    simulation.run_until(State.RUNNING)
    minutes(2, moves=False)
    assert simulation.desk.state() is State.RUNNING, "what stood still while it was paused does not count"


def test_a_change_reaches_writers_and_connector(simulation: Simulation) -> None:
    simulation.start()
    simulation.desk.change(include_collections=["items"])
    simulation.run(3 * IN_MOTION_S + 5)
    assert simulation.world.specs["shop"].source.include_collections == ("items",)
    assert simulation.world.connectors["shop"].config["collections"] == "items"
    assert simulation.desk.record is not None
    assert simulation.desk.record.published_version == 2
    assert simulation.desk.record.rules_version == 3


def test_while_connect_is_away_nothing_is_said_to_run(simulation: Simulation) -> None:
    simulation.start()
    simulation.world.failure_rate = 1.0
    simulation.run(10)
    assert simulation.condition(ConditionKind.CONNECTOR_RUNNING) == ("unknown", "Unavailable")
    assert simulation.desk.state() is State.DEGRADED
    simulation.world.failure_rate = 0.0
    simulation.run_until(State.RUNNING, 10)


def test_without_reports_of_writers_nothing_is_said_to_have_stopped(simulation: Simulation) -> None:
    simulation.start()
    simulation.world.trouble = "Kafka is away"
    simulation.desk.want(Desired.STOPPED)
    simulation.run(60)
    assert simulation.desk.state() is State.STOPPING
    simulation.world.trouble = None
    simulation.run_until(State.STOPPED, 10)


def test_what_somebody_corrects_is_tried_at_once(simulation: Simulation) -> None:
    """However long it had failed, and so however long it would be waited for the next attempt."""
    simulation.world.refused_specs.add("db")
    simulation.desk.want(Desired.RUNNING)
    simulation.run(CALM_S)
    simulation.world.refused_specs.clear()
    simulation.desk.change(include_collections=["items"])
    simulation.run_until(State.RUNNING, 8)


def test_who_is_no_leader_changes_nothing(simulation: Simulation) -> None:
    simulation.desk.want(Desired.RUNNING)
    driver = PipelineDriver(simulation.world.systems(), simulation.world.clock, simulation.rng, is_leader=lambda: False)
    row = simulation.desk.load()
    assert row is not None
    with pytest.raises(NotLeader):
        driver.round(row)
    assert simulation.world.calls == []


def test_leadership_lost_within_a_round_ends_it(simulation: Simulation) -> None:
    answers = iter([True])
    simulation.desk.want(Desired.RUNNING)
    row = simulation.desk.load()
    assert row is not None
    driver = PipelineDriver(
        simulation.world.systems(), simulation.world.clock, simulation.rng, is_leader=lambda: next(answers, False)
    )
    with pytest.raises(NotLeader):
        driver.round(row)
    assert simulation.world.calls == []


def test_a_forced_deletion_does_without_the_source(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.start()

    def away(spec: object) -> None:
        raise Transient("the source is away")

    monkeypatch.setattr(simulation.world, "remove_heartbeat", away)
    asked = simulation.desk.ask(OperationKind.DELETE, keep_tables=False)
    simulation.run(CALM_S)
    assert simulation.desk.state() is State.DELETING
    simulation.desk.operations.clear()
    asked = simulation.desk.ask(OperationKind.DELETE, keep_tables=False, force=True)
    simulation.run_until(None)
    assert "the source is away" in simulation.desk.finished[asked][1]


def test_a_restart_waits_for_the_connector(simulation: Simulation) -> None:
    simulation.start()
    asked = simulation.desk.ask(OperationKind.RESTART)
    simulation.run(10)
    assert simulation.desk.finished[asked] == (OperationState.SUCCEEDED, "the connector runs")
    assert simulation.world.calls.count("restart shop") == 1
