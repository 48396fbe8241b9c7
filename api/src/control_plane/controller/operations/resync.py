"""The operation `resync`: a snapshot of the whole pipeline or of collections, or of the documents that match a filter.

Of the whole pipeline, and where a table must start anew, the connector is stopped for a moment; then the operation only
follows what the connector tells, until every table is whole. A resync waits for as long as the pipeline is not to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.publication import publish
from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.resync.filtered_resync import RereadsAsked, are_answered, ask_for_matching
from cdc_shared.resync.resync import Resync, ResyncTarget
from cdc_shared.resync.resync_progress import START_TIMEOUT_S, ResyncProgress, not_begun
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from cdc_shared.snapshots.topic_positions import TopicPositions
from cdc_shared.source.document_filter import parse_filter
from cdc_shared.source.mongodb_source import MongodbSource
from control_plane.controller.operations.connector_offsets import STOP_TIMEOUT_S, stop_and_forget
from control_plane.controller.operations.operation import Done, OperationContext, Progress

LOOK_TIMEOUT_S: Final = 10.0
FOLLOW_EVERY_S: Final = 3.0
WAIT_TO_RUN_S: Final = 5.0
READ_S: Final = 0.5
REASON: Final = "resync by filter"

Memory = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResyncSystems:
    """What a resync works with. `source` is to be closed by whoever asked for it."""

    kafka: KafkaSettings
    stores: ObjectStoreSettings
    connect: Callable[[], ConnectClient]
    source: Callable[[PipelineSpec], MongodbSource]


class ResyncOperation:
    """Works resyncs. Its arguments: `collections` (none: the whole pipeline) and `filter` (then one collection)."""

    def __init__(self, systems: ResyncSystems, clock: Callable[[], float] = time.time) -> None:
        """`clock` in seconds; a resync outlives the process."""
        self._systems = systems
        self._clock = clock

    def step(self, context: OperationContext) -> Progress | Done:
        """See `Operation.step`."""
        if context.arguments.get("filter"):
            return self._filtered(context)
        phase = context.memory.get("phase", "begin")
        if context.desired != "running":
            # A connector that was started meanwhile by others is stopped again, so the first steps are taken anew.
            kept = context.memory if phase in ("run", "follow") else {}
            return Progress(kept, "waits for the pipeline to run", holds_connector=False, again_in_s=WAIT_TO_RUN_S)
        steps = _STEPS | {"run": self._run, "follow": self._follow}
        said: list[str] = []
        with self._systems.connect() as connect:
            collections = context.arguments.get("collections", ())
            systems = self._systems
            resync = Resync(context.spec, systems.kafka, systems.stores, connect, collections, said.append)
            return steps[phase](_Step(context, resync, connect, said))

    def _run(self, at: _Step) -> Progress:
        """Wait for the connector, which is the controller's again; then have it and the writers begin."""
        memory = at.context.memory
        status = at.connect.status(at.context.pipeline)
        if status is None or not status.running:
            return Progress(memory, "waiting for the connector to run", holds_connector=False)
        if not at.resync.is_whole:
            at.resync.signal(list(memory["topics"]))
        self._wake_writers(at.context.spec)
        return Progress({**memory, "phase": "follow"}, "waiting for the snapshot to begin", holds_connector=False)

    def _wake_writers(self, spec: PipelineSpec) -> None:
        """Publish once more what is published: writers that had ended begin again."""
        kafka = self._systems.kafka
        try:
            publish(kafka.bootstrap_servers, spec.model_copy(update={"desired": "running"}), kafka.pipelines_topic)
        except InvalidSpec as error:  # somebody has published other rules meanwhile: the next attempt has them
            raise Transient(str(error)) from error

    def _follow(self, at: _Step) -> Progress | Done:
        """Look how far connector and writers are."""
        memory, name = dict(at.context.memory), at.context.pipeline
        target, bootstrap = _target(memory), self._systems.kafka.bootstrap_servers
        with ResyncProgress(at.context.spec, self._systems.stores, target, bootstrap, at.said.append) as progress:
            deadline_s = time.monotonic() + LOOK_TIMEOUT_S
            while not progress.is_up_to_date and time.monotonic() < deadline_s:
                progress.look(READ_S)
        if progress.is_over:
            tables = len(at.context.memory["asked"])
            return Done(f"the snapshot is in; {tables} table{'s' * (tables != 1)} whole again")
        if not progress.begun:
            status = at.connect.status(name)
            runs = status is not None and status.running
            # Only while it runs does its time count: an outage of Connect is not the snapshot's.
            memory["running_since"] = (memory.get("running_since") or self._clock()) if runs else None
            if runs and self._clock() - memory["running_since"] > START_TIMEOUT_S:
                raise Fatal(not_begun(name))
        if progress.completed:
            memory["topics"] = _as_json({each: target.topics[each] for each in progress.waiting})
        return Progress(memory, _told(progress, at.said), holds_connector=False, again_in_s=FOLLOW_EVERY_S)

    # -- by filter ----------------------------------------------------------------------------------------------------

    def _filtered(self, context: OperationContext) -> Progress | Done:
        """Ask for what matches, then wait until the table holds it. Nobody stops the connector."""
        if context.desired != "running":
            waits = "waits for the pipeline to run"
            return Progress(context.memory, waits, holds_connector=False, again_in_s=WAIT_TO_RUN_S)
        (collection,) = context.arguments["collections"]
        bootstrap = self._systems.kafka.bootstrap_servers
        if not context.memory:
            self._check_can_read_on(context, collection)
            filter_ = parse_filter(context.arguments["filter"])
            with closing(self._systems.source(context.spec)) as source:
                asked = ask_for_matching(context.spec, collection, filter_, source, bootstrap, REASON)
            if not asked.documents:
                return Done(f"no document of {collection} matches the filter")
            return Progress(_remembered(asked), _reading(asked, collection), holds_connector=False)
        asked = _asked(context.memory)
        with closing(TopicPositions(bootstrap)) as positions:
            if are_answered(context.spec, collection, asked, self._systems.stores, positions):
                return Done(f"{asked.documents:,} documents of {collection} were read again")
        return Progress(
            context.memory, _reading(asked, collection), holds_connector=False, again_in_s=FOLLOW_EVERY_S / 2
        )

    def _check_can_read_on(self, context: OperationContext, collection: str) -> None:
        """A request would lie where the table's writer never comes."""
        systems = self._systems
        with systems.connect() as connect:
            resync = Resync(context.spec, systems.kafka, systems.stores, connect, [collection], lambda _: None)
            if resync.must_stop([collection]):
                raise Fatal(
                    f"the table of {collection} cannot read on where it stands, so single documents cannot be read "
                    "again: resync the whole collection"
                )


@dataclass(frozen=True, slots=True)
class _Step:
    """What one step of a resync by snapshot works with."""

    context: OperationContext
    resync: Resync
    connect: ConnectClient
    said: list[str]


def _begin(at: _Step) -> Progress:
    at.resync.check()
    collections = at.resync.collections()
    if at.resync.must_stop(collections):
        return Progress({"phase": "stop", "asked": collections}, "stopping the connector", again_in_s=0)
    memory = _ready(at, collections, "run")
    return Progress(memory, "waiting for the connector to run", holds_connector=False, again_in_s=0)


def _stop(at: _Step) -> Progress:
    if at.resync.is_whole:
        stop_and_forget(at.connect, at.context)
    else:
        at.connect.stop(at.context.pipeline, STOP_TIMEOUT_S)
    return Progress({**at.context.memory, "phase": "ready"}, "the connector is stopped", again_in_s=0)


def _make_ready(at: _Step) -> Progress:
    """Only while the connector is stopped: what it sent before would count as the snapshot that is asked for."""
    status = at.connect.status(at.context.pipeline)
    if status is None or status.state != "STOPPED":
        return Progress({**at.context.memory, "phase": "stop"}, "stopping the connector again", again_in_s=0)
    return Progress(_ready(at, at.context.memory["asked"], "start"), "the tables are ready", again_in_s=0)


def _start(at: _Step) -> Progress:
    at.connect.resume(at.context.pipeline)
    memory = {**at.context.memory, "phase": "run"}
    return Progress(memory, "waiting for the connector to run", holds_connector=False)


def _ready(at: _Step, collections: list[str], phase: str) -> dict[str, Any]:
    """Have the tables ready; return what the following steps need to know."""
    target = at.resync.make_ready(collections)
    return {"phase": phase, "asked": collections, "since": target.since, "topics": _as_json(target.topics)}


_STEPS: Final[dict[str, Callable[[_Step], Progress | Done]]] = {
    "begin": _begin,
    "stop": _stop,
    "ready": _make_ready,
    "start": _start,
}


def _told(progress: ResyncProgress, said: list[str]) -> str:
    if not progress.completed:
        return said[-1] if said else "waiting for the snapshot to begin"
    return f"the snapshot is complete; waiting for the writer to apply it to {', '.join(progress.waiting)}"


def _reading(asked: RereadsAsked, collection: str) -> str:
    return f"{asked.documents:,} documents of {collection} are read again"


def _as_json(topics: Mapping[str, ChangeTopic]) -> dict[str, list[str | int]]:
    return {name: [each.name, each.topic_id, each.partitions] for name, each in topics.items()}


def _target(memory: Memory) -> ResyncTarget:
    return ResyncTarget(memory["since"], {name: ChangeTopic(*each) for name, each in memory["topics"].items()})


def _remembered(asked: RereadsAsked) -> dict[str, Any]:
    return {
        "documents": asked.documents,
        "topic": [asked.topic.name, asked.topic.topic_id, asked.topic.partitions],
        "ends": {str(partition): end for partition, end in asked.ends.items()},  # JSON has no other keys
    }


def _asked(memory: Memory) -> RereadsAsked:
    ends = {int(partition): end for partition, end in memory["ends"].items()}
    return RereadsAsked(memory["documents"], ChangeTopic(*memory["topic"]), ends)
