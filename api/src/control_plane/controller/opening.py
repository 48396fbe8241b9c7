"""The controller over the real systems."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

from anyio import to_thread

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import load_template
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.errors import Fatal
from cdc_shared.kafka.status_topic import StatusReader
from cdc_shared.models.common import PipelineSpec
from cdc_shared.security.references import secret_providers
from cdc_shared.source.mongodb_source import MongodbSource
from control_plane.controller.connector_setup import DebeziumSetup
from control_plane.controller.controller import Controller
from control_plane.controller.kafka_connect import LOOK_TIMEOUT_S, KafkaConnect
from control_plane.controller.operations.delete import DeleteOperation
from control_plane.controller.operations.operation import Operation
from control_plane.controller.operations.remains import PipelineRemains
from control_plane.controller.operations.reset import ResetOperation
from control_plane.controller.operations.restart import RestartOperation
from control_plane.controller.operations.resync import ResyncOperation, ResyncSystems
from control_plane.controller.published_specs import PublishedSpecs
from control_plane.controller.source_watch import LookAtSource, SourceWatch
from control_plane.controller.systems import Systems
from control_plane.models.operation import OperationKind
from control_plane.settings import Settings

REQUEST_TIMEOUT_S: Final = 30.0
"""Of Connect. Slower answers are not waited for: what was asked for is seen at the next look."""


@asynccontextmanager
async def open_controller(settings: Settings) -> AsyncIterator[Controller]:
    """A running controller, which is or becomes the leader when no other process is; it ends with the block.

    Raises `Fatal` when a setting is missing that only a controller needs. That a system is away keeps nobody from
    starting.
    """
    template_file, secrets_dir = settings.api.connector_template, settings.api.connect_secrets_dir
    if template_file is None or secrets_dir is None:
        name = "CONNECTOR_TEMPLATE" if template_file is None else "CONNECT_SECRETS_DIR"
        raise Fatal(f"{name} is not set: set it, or set API_CONTROLLER=0 and let another process be the controller")
    bootstrap = settings.kafka.bootstrap_servers
    kept = ConnectorSecrets(secrets_dir)
    setup = DebeziumSetup(load_template(template_file), kept, secret_providers(settings.secrets), bootstrap)
    wakers: list[Controller] = []

    def wake(name: str) -> None:
        for each in wakers:
            each.wake(name)

    specs = PublishedSpecs(bootstrap, settings.kafka.pipelines_topic, wake)
    writers = StatusReader(bootstrap, wake)
    client = partial(ConnectClient, settings.connect.url, hide=kept.hide)
    connect = partial(client, timeout_s=REQUEST_TIMEOUT_S)
    look = await to_thread.run_sync(partial(client, timeout_s=LOOK_TIMEOUT_S))
    connectors = KafkaConnect(connect, look, time.monotonic)
    operations: Mapping[OperationKind, Operation] = {
        OperationKind.RESTART: RestartOperation(connect, specs),
        OperationKind.RESYNC: ResyncOperation(
            ResyncSystems(settings.kafka, settings.stores, connect, partial(_source, settings))
        ),
        OperationKind.RESET: ResetOperation(settings.kafka, settings.stores, connect, setup),
        OperationKind.DELETE: DeleteOperation(
            connect, setup, specs, PipelineRemains(bootstrap, settings.stores, settings.secrets, kept)
        ),
    }
    sources = SourceWatch(LookAtSource(partial(_source, settings), connect), time.monotonic)
    async with AsyncExitStack() as stack:
        stack.callback(sources.close)
        stack.push_async_callback(to_thread.run_sync, connectors.close)
        for reader in (specs.start(), writers.start()):
            stack.push_async_callback(to_thread.run_sync, reader.close)
        dsn = settings.api.postgres_dsn.get_secret_value()
        controller = Controller(
            Systems(connectors, setup, specs, writers, sources, operations), dsn, random.SystemRandom()
        )
        wakers.append(controller)
        task = asyncio.create_task(controller.run(), name="controller")
        stack.push_async_callback(_end, task)
        yield controller


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _source(settings: Settings, spec: PipelineSpec) -> MongodbSource:
    return MongodbSource(spec.source, settings.secrets, os.environ)
