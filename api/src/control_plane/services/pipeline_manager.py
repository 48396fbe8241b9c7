"""What people do with pipelines: make, look at, change, move and delete them.

Everything here is desired state in Postgres; the controller makes it true in Kafka Connect and `cdc.pipelines`. Whoever
changes a pipeline holds its row until the request's transaction ends, so two who act at once take turns, and each is
judged by what the other left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import check_rules
from cdc_shared.source.document_filter import InvalidFilter, parse_filter
from control_plane.database import Connection
from control_plane.models.operation import Operation, OperationKind, OperationState
from control_plane.models.pipeline import Desired, PipelineConfig, PipelineRecord, ResetRequest, ResyncRequest, State
from control_plane.problems import Problem
from control_plane.repositories import operation_repo, pipeline_repo
from control_plane.repositories.pipeline_repo import PipelineFilter
from control_plane.services.lifecycle import CANCELS, RULES, Move, check_move, config_of, state_of
from control_plane.services.preconditions import check_etag
from control_plane.services.spec_change import SNAPSHOTLESS_MODE, NewlyCaptured, check_change, consequences

UNREADABLE: Final = (
    "the spec before is of another release and could not be compared: give the same database, root, mode and number of "
    "partitions, and resync the pipeline if it captures other collections now"
)
BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Change:
    """A pipeline after a change of its spec, and what whoever made it should know."""

    record: PipelineRecord
    notices: tuple[str, ...] = ()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PipelineManager:
    """The rules of making, changing, moving and deleting. Each call works in its caller's transaction."""

    def __init__(self, clock: Callable[[], datetime] = _utc_now) -> None:
        self._clock = clock

    def state(self, record: PipelineRecord) -> State:
        return state_of(record, self._clock())

    async def create(self, connection: Connection, config: PipelineConfig, by: str) -> PipelineRecord:
        """Add a pipeline, stopped. Raises `Problem` 409 when there is one of that name."""
        if await pipeline_repo.insert(connection, config.name, config.stored(), by) is None:
            raise Problem(
                409,
                "already_exists",
                f"there is a pipeline {config.name} already: choose another name, or change that one; if it is being "
                "deleted, wait until it is gone",
            )
        return await self.get(connection, config.name)

    async def get(self, connection: Connection, name: str) -> PipelineRecord:
        """Raises `Problem` 404 when there is none of that name."""
        record = await pipeline_repo.find(connection, name)
        if record is None:
            raise _unknown(name)
        return record

    async def page(
        self, connection: Connection, which: PipelineFilter, state: State | None, after: str | None, limit: int
    ) -> tuple[list[PipelineRecord], bool]:
        """Pipelines by name, those behind `after`, and whether there are more."""
        found: list[PipelineRecord] = []
        while True:
            batch = await pipeline_repo.page(connection, which, after, BATCH if state else limit + 1)
            found += [each for each in batch if state is None or self.state(each) is state]
            if len(found) > limit or state is None or len(batch) < BATCH:
                return found[:limit], len(found) > limit
            after = batch[-1].name

    async def replace(
        self, connection: Connection, name: str, config: PipelineConfig, if_match: str | None, by: str
    ) -> Change:
        """Give the pipeline another spec. The same one again changes nothing, not even the version.

        Raises:
            Problem: 404; 412 when the spec has changed since `if_match`, 428 without one; 422 for another name; 409 for
                what is fixed once the pipeline was started, or while it is being reset or deleted.
            InvalidSpec: rules that would give rows that are there other keys.
        """
        record = await self._locked(connection, name)
        check_match(record, if_match)
        check_move(Move.CHANGE, record, self._clock())
        if config.name != name:
            raise Problem(422, "invalid_request", f"a pipeline keeps its name: give {name} as the spec's name")
        if config.stored() == record.spec:
            return Change(record)
        resync, notices = _follows(record, config.spec()) if record.started else (None, ())
        await pipeline_repo.replace_spec(connection, name, config.stored(), by)
        if resync is not None:
            arguments = ResyncRequest(collections=resync.named).model_dump(mode="json")
            await operation_repo.insert(connection, name, record.id, OperationKind.RESYNC, arguments, by)
        return Change(await self.get(connection, name), notices)

    async def replace_quality(
        self, connection: Connection, name: str, quality: QualitySpec, if_match: str | None, by: str
    ) -> Change:
        """Give the pipeline other rules and leave the rest of its spec.

        Raises what `replace` does, and `InvalidRules` for rules that can never be applied.
        """
        check_rules(quality)
        spec = config_of(await self._locked(connection, name))
        return await self.replace(connection, name, PipelineConfig(**{**dict(spec), "quality": quality}), if_match, by)

    async def move(self, connection: Connection, name: str, move: Move, by: str) -> PipelineRecord:
        """Start, pause, resume or stop.

        Raises `Problem` 404, or 409 with the current state; `InvalidSpec` when what is stored could not be run.
        """
        record = await self._locked(connection, name)
        check_move(move, record, self._clock())
        to = RULES[move].to
        if to is Desired.RUNNING:
            config_of(record)
        assert to is not None, move  # nosec B101 # the other moves have methods of their own
        await operation_repo.cancel(connection, name, CANCELS.get(move, ()))
        await pipeline_repo.move(connection, name, to, by)
        return await self.get(connection, name)

    async def restart(self, connection: Connection, name: str, by: str) -> Operation:
        """Have connector and tasks begin again. Raises `Problem` 404, or 409 with the current state."""
        record = await self._locked(connection, name)
        check_move(Move.RESTART, record, self._clock())
        await pipeline_repo.move(connection, name, record.desired, by)  # what was reached before proves nothing now
        return await operation_repo.insert(connection, name, record.id, OperationKind.RESTART, {}, by)

    async def resync(self, connection: Connection, name: str, wanted: ResyncRequest, by: str) -> Operation:
        """Have documents read again: all, those of collections, or those of one that match a filter. Asked again before
        it has begun, gives the same one.

        Raises `Problem` 404, 409 with the current state, or 422 for what the pipeline does not capture.
        """
        record = await self._locked(connection, name)
        check_move(Move.RESYNC, record, self._clock())
        _check_resync(config_of(record), wanted)
        arguments = wanted.model_dump(mode="json")
        for each in record.operations:
            if (each.kind, each.state, each.arguments) == (OperationKind.RESYNC, OperationState.PENDING, arguments):
                return each
        return await operation_repo.insert(connection, name, record.id, OperationKind.RESYNC, arguments, by)

    async def reset(self, connection: Connection, name: str, wanted: ResetRequest, by: str) -> Operation:
        """Have a stopped pipeline forget how far it has read.

        Raises `Problem` 404, 409 with the current state, or 422 for tables that would keep a gap for ever.
        """
        record = await self._locked(connection, name)
        check_move(Move.RESET, record, self._clock())
        _check_reset(config_of(record), wanted)
        await operation_repo.cancel(connection, name, CANCELS[Move.RESET])
        arguments = wanted.model_dump(mode="json")
        return await operation_repo.insert(connection, name, record.id, OperationKind.RESET, arguments, by)

    async def delete(
        self,
        connection: Connection,
        name: str,
        if_match: str | None,
        by: str,
        *,
        keep_tables: bool,
        keep_offsets: bool,
        force: bool,
    ) -> Operation:
        """Have the pipeline taken down, and its row with it. Asked again, gives the deletion that is under way.

        `force`: whatever state it is in. Raises `Problem` 404, 409 with the current state, 412; `InvalidSpec` when the
        stored spec is of another release: it has to be replaced first.
        """
        record = await self._locked(connection, name)
        if if_match is not None:
            check_match(record, if_match)
        under_way = [each for each in record.operations if each.kind is OperationKind.DELETE]
        if under_way:
            return under_way[0]
        check_move(Move.DELETE, record, self._clock(), force=force)
        config_of(record)  # from then on it cannot be replaced any more, and nobody could tell what is to be removed
        await operation_repo.cancel(connection, name, CANCELS[Move.DELETE])
        to = RULES[Move.STOP].to
        assert to is not None  # nosec B101
        await pipeline_repo.move(connection, name, to, by, deleting=True)
        arguments: dict[str, Any] = {"keep_tables": keep_tables, "keep_offsets": keep_offsets, "force": force}
        return await operation_repo.insert(connection, name, record.id, OperationKind.DELETE, arguments, by)

    async def operations(
        self, connection: Connection, name: str, before: int | None, limit: int
    ) -> tuple[list[Operation], int | None]:
        """The pipeline's operations, newest first, and the `before` of the next page; also of one that was deleted.

        Raises `Problem` 404 when there never was one.
        """
        found = await operation_repo.page(connection, name, before, limit + 1)
        if not found and before is None:
            await self.get(connection, name)
        following = found[limit - 1][0] if len(found) > limit else None
        return [operation for _, operation in found[:limit]], following

    async def operation(self, connection: Connection, name: str, operation: UUID) -> Operation:
        """Raises `Problem` 404."""
        found = await operation_repo.find(connection, name, operation)
        if found is None:
            raise Problem(404, "not_found", f"pipeline {name} has no operation of that id")
        return found

    async def _locked(self, connection: Connection, name: str) -> PipelineRecord:
        if not await pipeline_repo.lock(connection, name):
            raise _unknown(name)
        return await self.get(connection, name)


def check_match(record: PipelineRecord, if_match: str | None) -> None:
    """Raises `Problem` 428 without an `If-Match`, 412 when none of its ETags is that of the spec in force."""
    changed = f"pipeline {record.name} has changed since: it has version {record.version} now"
    check_etag(record.etag, if_match, changed)


def _follows(record: PipelineRecord, after: PipelineSpec) -> tuple[NewlyCaptured | None, tuple[str, ...]]:
    """What has to be read anew, and what people should know, once a started pipeline has the spec `after`."""
    try:
        before = config_of(record).spec()
    except InvalidSpec:  # it must be possible to replace it
        return None, (UNREADABLE,)
    check_change(before, after)
    found = consequences(before, after)
    return found.resync, found.notices


def _check_reset(config: PipelineConfig, wanted: ResetRequest) -> None:
    """Without a snapshot nobody would ever tell the tables what changed between the position that is forgotten and the
    next start."""
    if wanted.keep_tables and config.source.snapshot_mode == SNAPSHOTLESS_MODE:
        raise Problem(
            422,
            "invalid_request",
            "source.snapshot_mode is no_data, so the next start would begin without a snapshot, and whatever changed "
            "meanwhile would be missing from the tables: drop them with keep_tables false, or choose another mode",
        )


def _check_resync(config: PipelineConfig, wanted: ResyncRequest) -> None:
    source = config.source
    strange = sorted(name for name in wanted.collections if not source.captures(name))
    if strange:
        raise Problem(
            422,
            "not_captured",
            f"the pipeline does not capture {', '.join(strange)}: correct the name, or the spec first",
        )
    if wanted.filter is not None:
        if len(wanted.collections) != 1:
            raise Problem(422, "invalid_request", "a filter is for one collection: name it in collections")
        try:
            parse_filter(wanted.filter)
        except InvalidFilter as error:
            raise Problem(422, "invalid_filter", str(error)) from None
    if not wanted.collections and source.snapshot_mode == SNAPSHOTLESS_MODE:
        raise Problem(
            422,
            "invalid_request",
            "source.snapshot_mode is no_data, so the connector never begins with a snapshot: name the collections",
        )


def _unknown(name: str) -> Problem:
    return Problem(404, "not_found", f"there is no pipeline {name}")
