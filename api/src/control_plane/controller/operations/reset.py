"""The operation `reset`: a stopped pipeline forgets how far it has read, so that its next start snapshots anew.

The tables stay, and the snapshot's sweep makes them equal to the source; or they are dropped, with the change topics,
so that nothing of before comes into the new ones. Dead letters stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import Fatal
from cdc_shared.kafka.consumer_groups import members, writer_group
from cdc_shared.kafka.topics import ensure_connector_topics, notification_topic
from cdc_shared.resync.resync import Resync
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings
from control_plane.controller.operations.connector_offsets import forget_of_any
from control_plane.controller.operations.operation import Done, OperationContext, Progress
from control_plane.controller.operations.removal import (
    all_topics,
    change_topics_of,
    remove_table,
    remove_topics,
    tables_of,
)
from control_plane.controller.systems import ConnectorSetup

WRITERS_LEAVE_S: Final = 2.0


class ResetOperation:
    """Works resets. Its argument: `keep_tables`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        stores: ObjectStoreSettings,
        connect: Callable[[], ConnectClient],
        setup: ConnectorSetup,
    ) -> None:
        self._kafka = kafka
        self._stores = stores
        self._connect = connect
        self._setup = setup

    def step(self, context: OperationContext) -> Progress | Done:
        """See `Operation.step`."""
        if context.desired != "stopped":
            raise Fatal(f"pipeline {context.pipeline} is to be {context.desired}; stop it, then reset it again")
        match context.memory.get("phase", "forget"):
            case "forget":
                return self._forget(context)
            case "keep":
                return self._keep(context)
            case _:
                return self._drop(context)

    def _forget(self, context: OperationContext) -> Progress:
        """Wait for the writers to leave; then have Connect forget the offsets, which outlive a connector."""
        running = members(self._admin(), writer_group(context.pipeline))
        if running:
            message = f"waiting for the writers to leave: {', '.join(running)}"
            return Progress(context.memory, message, again_in_s=WRITERS_LEAVE_S)
        with self._connect() as connect:
            remembered = dict(context.memory)
            waits = forget_of_any(connect, self._setup, context, remembered)
        if waits is not None:
            return Progress(remembered, waits)
        if context.arguments.get("keep_tables", True):
            return Progress({"phase": "keep"}, "the connector has forgotten how far it had read", again_in_s=0)
        tables = tables_of(context.spec, self._stores)
        memory: dict[str, Any] = {"phase": "drop", "tables": tables, "dropped": len(tables)}
        return Progress(memory, f"{_tables(len(tables))} to drop", again_in_s=0)

    def _keep(self, context: OperationContext) -> Done:
        """Have those tables start anew that cannot read on: Kafka may have dropped what they need meanwhile."""
        admin = self._admin()
        ensure_connector_topics(admin, context.pipeline)
        with self._connect() as connect:
            resync = Resync(context.spec, self._kafka, self._stores, connect, (), lambda _: None)
            target = resync.make_ready(resync.collections())
        return Done(
            f"the next start begins with a snapshot; {_tables(len(target.topics))} kept for it to bring up to date"
        )

    def _drop(self, context: OperationContext) -> Progress | Done:
        """The tables first: a writer that were started behind our back would only fill them from the topics again."""
        tables = list(context.memory["tables"])
        if tables:
            if remove_table(tables[0], self._stores):
                tables = tables[1:]
            return Progress({**context.memory, "tables": tables}, f"{_tables(len(tables))} to drop", again_in_s=0)
        admin = self._admin()
        topics = all_topics(admin)
        # What the connector has told of snapshots was of the tables that are gone.
        told = [topic for topic in topics if topic == notification_topic(context.pipeline)]
        remove_topics(admin, [*change_topics_of(context.spec, topics), *told])
        return Done(f"the next start begins with a snapshot; {_tables(context.memory['dropped'])} dropped")

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._kafka.bootstrap_servers, "log_level": 5})


def _tables(number: int) -> str:
    return f"{number} table{'s' * (number != 1)}"
