"""What people do with pipelines: the rules of `PipelineManager`, on repositories in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from memory_pipelines import MemoryPipelines

from cdc_shared.models.common import InvalidSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.rule_checks import InvalidRules
from control_plane.database import Connection
from control_plane.models.operation import Operation, OperationKind, OperationState
from control_plane.models.pipeline import Desired, PipelineConfig, PipelineRecord, ResetRequest, ResyncRequest, State
from control_plane.problems import Problem
from control_plane.repositories.pipeline_repo import PipelineFilter
from control_plane.services import pipeline_manager
from control_plane.services.lifecycle import Move
from control_plane.services.pipeline_manager import PipelineManager, check_match

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

NO_CONNECTION = cast(Connection, None)
HASHED = {"rule": "hash", "path": "/_id", "key": "env:KEY"}
MASKED = {"rule": "redact", "path": "/email"}


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> MemoryPipelines:
    memory = MemoryPipelines()
    monkeypatch.setattr(pipeline_manager, "pipeline_repo", memory)
    monkeypatch.setattr(pipeline_manager, "operation_repo", memory.operations)
    return memory


@pytest.fixture
def manager(pipelines: MemoryPipelines) -> PipelineManager:
    return PipelineManager(lambda: datetime(2026, 1, 1, tzinfo=UTC))


def config(name: str = "shop", **parts: Any) -> PipelineConfig:
    source = {"connection": "env:X", "database": "shop"} | parts.pop("source", {})
    return PipelineConfig.model_validate({"name": name, "source": source, **parts})


async def create(manager: PipelineManager, wanted: PipelineConfig | None = None) -> PipelineRecord:
    return await manager.create(NO_CONNECTION, wanted or config(), "me")


async def start(manager: PipelineManager, name: str = "shop") -> PipelineRecord:
    return await manager.move(NO_CONNECTION, name, Move.START, "me")


async def replace(manager: PipelineManager, wanted: PipelineConfig, if_match: str | None = "*") -> Any:
    return await manager.replace(NO_CONNECTION, wanted.name, wanted, if_match, "you")


async def delete(manager: PipelineManager, *, force: bool = False) -> Any:
    return await manager.delete(NO_CONNECTION, "shop", None, "me", keep_tables=True, keep_offsets=False, force=force)


def refused(status: int, code: str) -> Any:
    def is_it(error: Exception) -> bool:
        return isinstance(error, Problem) and (error.status, error.code) == (status, code)

    return pytest.raises(Problem, check=is_it)


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_whoever_changes_holds_the_row_first(manager: PipelineManager, pipelines: MemoryPipelines) -> None:
    await create(manager)
    await start(manager)
    await replace(manager, config(batch={"max_seconds": 1}))
    await manager.resync(NO_CONNECTION, "shop", ResyncRequest(), "me")
    await manager.restart(NO_CONNECTION, "shop", "me")
    await delete(manager, force=True)
    assert pipelines.locked == ["shop"] * 5


async def test_a_pipeline_cannot_be_made_twice(manager: PipelineManager) -> None:
    await create(manager)
    with refused(409, "already_exists"):
        await create(manager)


async def test_the_same_spec_leaves_the_version(manager: PipelineManager) -> None:
    before = await create(manager)
    change = await replace(manager, config())
    assert (change.record.version, change.record.updated_by) == (before.version, "me")
    change = await replace(manager, config(batch={"max_seconds": 1}))
    assert (change.record.version, change.record.updated_by) == (2, "you")


def test_if_match_as_http_has_it() -> None:
    record = cast(PipelineRecord, type("Row", (), {"etag": '"a-1"', "name": "shop", "version": 1}))
    for given in ('"a-1"', '"b-1", "a-1"', "*"):
        check_match(record, given)
    with refused(428, "precondition_required"):
        check_match(record, None)
    for given in ('"a-2"', "a-1", 'W/"a-1"', ""):
        with refused(412, "precondition_failed"):
            check_match(record, given)


async def test_a_started_pipeline_keeps_what_its_tables_rest_on(manager: PipelineManager) -> None:
    await create(manager)
    await start(manager)
    for change in (
        {"source": {"database": "other"}},
        {"sink": {"root": "s3://elsewhere/x"}},
        {"sink": {"mode": "copy_on_write"}},
        {"topic_partitions": 4},
    ):
        with refused(409, "fixed_field"):
            await replace(manager, config(**change))
    with pytest.raises(InvalidSpec, match="/_id"):
        await replace(manager, config(quality={"transformation": [HASHED]}))


async def test_before_the_first_start_everything_may_change(manager: PipelineManager) -> None:
    await create(manager)
    wanted = config(
        source={"database": "other"}, topic_partitions=4, sink={"mode": "copy_on_write"},
        quality={"transformation": [HASHED]},
    )  # fmt: skip
    assert (await replace(manager, wanted)).record.spec == wanted.stored()


async def test_who_changes_rules_leaves_the_rest_of_the_spec(manager: PipelineManager) -> None:
    await create(manager, config(batch={"max_seconds": 7}))
    await start(manager)
    rules = QualitySpec.model_validate({"transformation": [MASKED]})
    change = await manager.replace_quality(NO_CONNECTION, "shop", rules, "*", "me")
    assert change.record.spec == config(batch={"max_seconds": 7}, quality={"transformation": [MASKED]}).stored()
    assert "/email" in change.notices[0]
    assert "remask" in change.notices[0]


async def test_rules_that_can_never_be_applied_are_refused(manager: PipelineManager) -> None:
    await create(manager)
    rules = QualitySpec.model_validate({"validation": [{"rule": "regex", "path": "/a", "pattern": "("}]})
    with pytest.raises(InvalidRules):
        await manager.replace_quality(NO_CONNECTION, "shop", rules, "*", "me")


async def test_another_secret_is_remarked_on(manager: PipelineManager) -> None:
    await create(manager)
    await start(manager)
    change = await replace(manager, config(source={"connection": "env:Y"}))
    assert "another secret" in change.notices[0]


async def test_a_spec_of_another_release_can_be_replaced(manager: PipelineManager, pipelines: MemoryPipelines) -> None:
    await create(manager)
    row = (await start(manager)).spec
    await pipelines.replace_spec(None, "shop", row | {"novelty": 1}, "a newer release")
    change = await replace(manager, config())
    assert (change.record.spec, change.notices) == (config().stored(), (pipeline_manager.UNREADABLE,))


async def test_nothing_is_asked_of_a_spec_that_nobody_could_carry_out(
    manager: PipelineManager, pipelines: MemoryPipelines
) -> None:
    """A deletion would never end, and keep everybody from correcting the spec."""
    row = (await create(manager)).spec
    await pipelines.replace_spec(None, "shop", row | {"novelty": 1}, "a newer release")
    for ask in (lambda: start(manager), lambda: delete(manager, force=True)):
        with pytest.raises(InvalidSpec, match=r"novelty.*replace it"):
            await ask()
    await replace(manager, config())
    await delete(manager)


# --- collections that come later --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "resynced"),
    [
        ({"include_collections": ["a"]}, {"include_collections": ["a", "b"]}, ["b"]),
        ({"include_collections": ["a", "b"]}, {"include_collections": ["b"]}, None),
        ({"include_collections": ["a"]}, {}, []),
        ({"include_collections": ["a"]}, {"exclude_collections": ["b"]}, []),
        ({}, {"include_collections": ["a"]}, None),
        ({"exclude_collections": ["a", "b"]}, {"exclude_collections": ["b", "c"]}, ["a"]),
        ({"exclude_collections": ["a", "b"]}, {}, ["a", "b"]),
        ({"exclude_collections": ["a", "b"]}, {"include_collections": ["b", "c"]}, ["b"]),
        ({}, {"exclude_collections": ["a"]}, None),
        ({"include_collections": ["a"]}, {"include_collections": ["b"], "snapshot_mode": "no_data"}, None),
    ],
)  # fmt: skip
async def test_what_is_captured_newly_is_resynced(
    manager: PipelineManager, pipelines: MemoryPipelines, before: dict[str, Any], after: dict[str, Any], resynced: Any
) -> None:
    await create(manager, config(source=before))
    await start(manager)
    await replace(manager, config(source=after))
    asked = [each.arguments["collections"] for each in pipelines.operations.unfinished("shop")]
    assert asked == ([] if resynced is None else [resynced])


async def test_the_resync_of_a_new_collection_outlives_a_stop_but_no_reset(
    manager: PipelineManager, pipelines: MemoryPipelines
) -> None:
    await create(manager, config(source={"include_collections": ["a"]}))
    await start(manager)
    await replace(manager, config(source={"include_collections": ["a", "b"]}))
    await manager.move(NO_CONNECTION, "shop", Move.STOP, "me")
    assert pipelines.operations.kinds("shop") == [OperationKind.RESYNC]
    pipelines.reach("shop")
    await manager.reset(NO_CONNECTION, "shop", ResetRequest(), "me")
    assert pipelines.operations.kinds("shop") == [OperationKind.RESET]


# --- moves and operations ---------------------------------------------------------------------------------------------


async def test_a_stop_makes_a_restart_pointless(manager: PipelineManager, pipelines: MemoryPipelines) -> None:
    await create(manager)
    await start(manager)
    await manager.restart(NO_CONNECTION, "shop", "me")
    await manager.move(NO_CONNECTION, "shop", Move.STOP, "me")
    assert pipelines.operations.kinds("shop") == []


async def test_what_was_reached_before_a_restart_proves_nothing(
    manager: PipelineManager, pipelines: MemoryPipelines
) -> None:
    await create(manager)
    await start(manager)
    pipelines.reach("shop")
    await manager.restart(NO_CONNECTION, "shop", "me")
    assert manager.state(pipelines.rows["shop"]) is State.STARTING


async def test_a_resync_that_has_not_begun_is_not_asked_for_twice(
    manager: PipelineManager, pipelines: MemoryPipelines
) -> None:
    """Each would read the whole source once more."""
    await create(manager)
    await start(manager)

    async def ask(*collections: str) -> Operation:
        return await manager.resync(NO_CONNECTION, "shop", ResyncRequest(collections=collections), "me")

    whole, some = await ask(), await ask("a")
    assert (await ask(), await ask("a")) == (whole, some)
    pipelines.operations.end(whole, OperationState.RUNNING)
    assert (await ask()).id not in (whole.id, some.id), "what has changed since it began may be missed"


async def test_a_snapshot_that_never_comes_is_refused(manager: PipelineManager) -> None:
    await create(manager, config(source={"snapshot_mode": "no_data"}))
    await start(manager)
    with refused(422, "invalid_request"):
        await manager.resync(NO_CONNECTION, "shop", ResyncRequest(), "me")
    await manager.resync(NO_CONNECTION, "shop", ResyncRequest(collections=("a",)), "me")


async def test_a_reset_that_no_snapshot_follows_keeps_no_tables(
    manager: PipelineManager, pipelines: MemoryPipelines
) -> None:
    """What changed between the forgotten position and the next start would be missing, and nobody would say so."""
    await create(manager, config(source={"snapshot_mode": "no_data"}))
    await start(manager)
    await manager.move(NO_CONNECTION, "shop", Move.STOP, "me")
    pipelines.reach("shop")
    with refused(422, "invalid_request"):
        await manager.reset(NO_CONNECTION, "shop", ResetRequest(), "me")
    await manager.reset(NO_CONNECTION, "shop", ResetRequest(keep_tables=False), "me")


async def test_a_deletion_that_failed_is_asked_for_again(manager: PipelineManager, pipelines: MemoryPipelines) -> None:
    await create(manager)
    first = await delete(manager)
    assert await delete(manager) == first
    pipelines.operations.end(first, OperationState.FAILED)
    assert manager.state(await manager.get(NO_CONNECTION, "shop")) is State.FAILED
    second = await delete(manager)
    assert second.id != first.id
    assert manager.state(await manager.get(NO_CONNECTION, "shop")) is State.DELETING


async def test_a_deletion_ends_everything_else(manager: PipelineManager, pipelines: MemoryPipelines) -> None:
    await create(manager)
    await start(manager)
    await manager.resync(NO_CONNECTION, "shop", ResyncRequest(), "me")
    await manager.restart(NO_CONNECTION, "shop", "me")
    await delete(manager, force=True)
    assert pipelines.operations.kinds("shop") == [OperationKind.DELETE]
    row = pipelines.rows["shop"]
    assert (row.desired, row.deleting) == (Desired.STOPPED, True)


async def test_operations_are_told_of_a_pipeline_that_is_gone(
    manager: PipelineManager, pipelines: MemoryPipelines
) -> None:
    await create(manager)
    operation = await delete(manager)
    del pipelines.rows["shop"]
    assert await manager.operations(NO_CONNECTION, "shop", None, 10) == ([operation], None)
    assert await manager.operation(NO_CONNECTION, "shop", operation.id) == operation
    with refused(404, "not_found"):
        await manager.operations(NO_CONNECTION, "never-was", None, 10)


async def test_a_page_by_state_looks_as_far_as_it_must(
    manager: PipelineManager, pipelines: MemoryPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_manager, "BATCH", 3)
    for number in range(10):
        await create(manager, config(f"p{number}"))
    for number in (4, 8, 9):
        await start(manager, f"p{number}")

    async def page(after: str | None, limit: int) -> tuple[list[str], bool]:
        found, more = await manager.page(NO_CONNECTION, PipelineFilter(), State.STARTING, after, limit)
        return [each.name for each in found], more

    assert await page(None, 2) == (["p4", "p8"], True)
    assert await page("p8", 2) == (["p9"], False)
    assert await page(None, 3) == (["p4", "p8", "p9"], False)
    assert await page("p9", 1) == ([], False)


# --- whatever people do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_people_do_a_pipeline_makes_sense(
    manager: PipelineManager, pipelines: MemoryPipelines, seed: int
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    await create(manager)
    calls: list[Callable[[], Any]] = [
        lambda: manager.move(NO_CONNECTION, "shop", rng.choice([Move.START, Move.PAUSE, Move.RESUME, Move.STOP]), "me"),
        lambda: manager.restart(NO_CONNECTION, "shop", "me"),
        lambda: manager.resync(NO_CONNECTION, "shop", ResyncRequest(collections=("a",)), "me"),
        lambda: manager.reset(NO_CONNECTION, "shop", ResetRequest(), "me"),
        lambda: replace(manager, config(source={"include_collections": rng.sample("abcd", rng.randint(1, 3))})),
    ]
    succeeded = 0
    for _ in range(300):
        before = await manager.get(NO_CONNECTION, "shop")
        code: str | None = None
        try:
            await rng.choice(calls)()
            succeeded += 1
        except Problem as problem:
            code = problem.code
        after = await manager.get(NO_CONNECTION, "shop")
        assert code in (None, "invalid_transition", "operation_in_progress", "not_captured")
        assert code is None or after == before, "what was refused has changed something"
        assert (after.version > before.version) == (after.spec != before.spec)
        assert after.desired_version > before.desired_version or after.desired is before.desired
        kinds = [each.kind for each in after.operations]
        assert kinds.count(OperationKind.RESET) <= 1
        assert kinds.count(OperationKind.RESTART) <= 1
        if OperationKind.RESET in kinds:
            assert after.desired is Desired.STOPPED
            assert kinds == [OperationKind.RESET]
        if after.desired is Desired.STOPPED:
            assert OperationKind.RESTART not in kinds
        if rng.random() < 0.5:
            pipelines.reach("shop")
        if after.operations and rng.random() < 0.5:
            pipelines.operations.end(after.operations[0], OperationState.SUCCEEDED)
    assert succeeded > 30
