"""`delta-writer restore`: who may run it, what it asks Kafka, and what it says."""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from confluent_kafka.admin import AdminClient

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import table_location
from cdc_shared.delta.table_metadata import HISTORY, TableIdentity
from cdc_shared.errors import Fatal
from cdc_shared.kafka.consumer_groups import members, writer_group
from cdc_shared.kafka.topics import UnknownTopic, change_topic, held_offsets, topic_id
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.retry import retrying
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.maintenance.restore import RestorePlan, TableRestore

GIVE_UP_AFTER_S: Final = 60.0
LEAVE_WITHIN_S: Final = 15.0
"""Writers finish what they have in hand before they leave a pipeline that was taken back."""
LOOK_EVERY_S: Final = 0.5


def restore_collection(
    bootstrap_servers: str,
    stores: ObjectStoreSettings,
    spec: PipelineSpec,
    collection: str,
    target: int | datetime,
    say: Callable[[str], None],
    *,
    history: bool,
    dry_run: bool,
) -> None:
    """Restore the collection's table to a version, or to the newest one committed by a time; `say` gets lines of text.

    With `history` its history table, with `dry_run` nothing: only what would be done is said.

    Raises:
        Fatal: a writer runs the pipeline, or `TableRestore` refuses. Nothing was written.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    if not dry_run:
        await_no_writer(spec.name, lambda: members(admin, writer_group(spec.name)), say)
    where = Collection(spec.source.database, collection)
    identity = TableIdentity(spec.name, where.database, where.name)
    location = table_location(spec, stores, where, history=history)
    topic = topic_of_table(admin, identity)
    table = TableRestore(location, identity, topic, HISTORY if history else spec.sink.mode, time.time)
    version = target if isinstance(target, int) else table.version_at(int(target.timestamp() * 1000))
    plan = table.plan(version, held_offsets(admin, topic.name, topic.partitions).__getitem__)
    say(_summary(location.url, plan))
    if dry_run:
        say("nothing was written (--dry-run)")
        return
    check_no_writer(spec.name, members(admin, writer_group(spec.name)))  # what was looked at may have taken a while
    committed = retrying(
        lambda: table.apply(plan),
        lambda attempt: say(f"waiting for the store: {attempt.error}"),
        threading.Event(),
        give_up_after_s=GIVE_UP_AFTER_S,
    )
    say(
        f"restored: version {committed} is version {plan.version} again; start the pipeline's writers, or publish its "
        "spec again to those that run"
    )


def await_no_writer(
    pipeline: str,
    running: Callable[[], list[str]],
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait a little for the pipeline's writers to leave, as after `unpublish`. Raises what `check_no_writer` does."""
    deadline_s = clock() + LEAVE_WITHIN_S
    if found := running():
        say(f"waiting up to {LEAVE_WITHIN_S:.0f} s for the writers of pipeline {pipeline} to stop ...")
    while found and clock() < deadline_s:
        sleep(LOOK_EVERY_S)
        found = running()
    check_no_writer(pipeline, found)


def check_no_writer(pipeline: str, running: list[str]) -> None:
    """Raise `Fatal` when there are members of the pipeline's group.

    One that starts a moment later does no harm: its first commit meets the restored table, and is fenced.
    """
    if running:
        who = "1 writer runs" if len(running) == 1 else f"{len(running)} writers run"
        raise Fatal(
            f"{who} pipeline {pipeline} ({', '.join(running)}): stop them first, or take the spec back "
            f"(`delta-writer unpublish {pipeline}`) and give it here with --spec; "
            "one that was killed, or that has a WRITER_INSTANCE_ID, counts until its session ends "
            "(WRITER_SESSION_TIMEOUT_S)"
        )


def topic_of_table(admin: AdminClient, identity: TableIdentity) -> ChangeTopic:
    """Return the change topic that a table is filled from. Raises `Fatal` when there is none."""
    name = change_topic(identity.pipeline, identity.database, identity.collection)
    try:
        return ChangeTopic(name, *topic_id(admin, name))
    except UnknownTopic:
        raise Fatal(
            f"there is no topic {name}: correct the collection's name; if the topic was deleted, what came after any "
            f"version is gone, and only a resync makes the table whole (`delta-writer resync {identity.pipeline} "
            f"--collection {identity.collection}`)"
        ) from None


def _summary(url: str, plan: RestorePlan) -> str:
    lines = [
        f"{url}: from version {plan.newest} back to version {plan.version}",
        f"  data files: {plan.files_back:,} as they were then come back, {plan.files_out:,} as they are now go",
    ]
    if plan.columns_out:
        lines.append(f"  columns that come again with their events: {', '.join(plan.columns_out)}")
    for partition, part in plan.replayed.items():
        lines.append(f"  partition {partition}: offsets {part.start:,} to {part.end - 1:,} are read again")
    if not plan.replayed:
        lines.append("  no event is read again")
    return "\n".join(lines)
