"""The services over the real parts, put together once at the start."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from anyio import to_thread

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.kafka.spec_topic import read_spec
from cdc_shared.kafka.status_topic import StatusReader
from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import resolve_reference, secret_providers
from control_plane.blocking import BlockingCalls
from control_plane.controller.opening import open_controller
from control_plane.database import Database
from control_plane.migrations import migrate
from control_plane.platform import Platform
from control_plane.services.audit_trail import AuditTrail
from control_plane.services.auth_service import AuthService
from control_plane.services.data_quality import RulesService
from control_plane.services.dead_letters import PipelineLetters
from control_plane.services.lake_queries import LakeQueries
from control_plane.services.metrics_collector import MetricsCollector
from control_plane.services.passwords import Passwords
from control_plane.services.pipeline_manager import PipelineManager
from control_plane.services.pipeline_status import Monitoring
from control_plane.services.preflight import Preflight
from control_plane.services.spec_admission import SpecAdmission
from control_plane.services.user_service import UserService
from control_plane.settings import Settings


@asynccontextmanager
async def open_platform(settings: Settings, passwords: Passwords | None = None) -> AsyncIterator[Platform]:
    """Bring the database forward and open every service; they are closed in the reverse order.

    `passwords`: hash them otherwise than by the product's setting, as tests do that are not about it.

    Raises `Transient` while Postgres does not answer, `Fatal` for what a person must correct.
    """
    dsn = settings.api.postgres_dsn.get_secret_value()
    await migrate(dsn)
    providers = secret_providers(settings.secrets)
    kafka = settings.kafka
    async with AsyncExitStack() as stack:
        database = await Database.open(dsn, settings.api.postgres_connections)
        stack.push_async_callback(database.close)
        reports = StatusReader(kafka.bootstrap_servers).start()
        stack.push_async_callback(to_thread.run_sync, reports.close)
        auth = await AuthService.open(settings, database, passwords or Passwords())
        if settings.api.controller:
            await stack.enter_async_context(open_controller(settings))
        yield Platform(
            settings=settings,
            database=database,
            audit=await stack.enter_async_context(AuditTrail.open(dsn)),
            auth=auth,
            users=UserService(auth.passwords, auth.clock),
            blocking=BlockingCalls(),
            pipelines=PipelineManager(),
            admission=SpecAdmission.of(settings),
            preflight=Preflight(settings, providers),
            rules=RulesService(
                kafka.bootstrap_servers, lambda reference: resolve_reference(reference, providers).reveal().encode()
            ),
            dead_letters=PipelineLetters(
                lambda: DeadLetters.on(
                    kafka.bootstrap_servers,
                    lambda: DataKeys.resolve(settings.data_key.reference, providers),
                    settings.stores,
                    lambda name: read_spec(kafka.bootstrap_servers, name, kafka.pipelines_topic),
                )
            ),
            monitoring=Monitoring(await stack.enter_async_context(MetricsCollector.open(settings, database, reports))),
            queries=await stack.enter_async_context(LakeQueries.open(settings.stores, settings.queries)),
        )
