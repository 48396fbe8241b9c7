"""Whether a pipeline would run, found out before it does: every check at once, each with a time limit, none with an
effect that stays.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import CapacityLimiter, Event, Semaphore, to_thread

from cdc_shared.connect.connector_config import load_template
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.errors import CdcError, Fatal, Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec
from cdc_shared.security.secret_provider import SecretProvider
from control_plane.models.preflight import CheckOutcome, CheckResult, PreflightReport
from control_plane.services.checks import connect, documents, kafka, object_store, source
from control_plane.services.checks.check import Check, Finding, failed, skipped
from control_plane.services.checks.source_probe import SourceProbe
from control_plane.settings import Settings

AT_ONCE: Final = 4
"""Preflights; each takes up to a thread a check. Further ones wait."""
MAX_MESSAGE_CHARS: Final = 700

_SOURCE: Final = "start MongoDB, correct the host and port in the connection string, or let this machine reach it"
_KAFKA: Final = "start Kafka, or correct KAFKA_BOOTSTRAP_SERVERS"
_CONNECT: Final = "start Kafka Connect, or correct CONNECT_URL"
_STORE: Final = "start the object store, or correct S3_ENDPOINT"

log = get_logger(__name__)


class Preflight:
    """Makes the checks of a pipeline and runs them."""

    def __init__(self, settings: Settings, providers: Mapping[str, SecretProvider]) -> None:
        """`providers` resolve the spec's references."""
        self._settings = settings
        self._providers = providers
        self._turns = Semaphore(AT_ONCE)

    async def report(self, spec: PipelineSpec) -> PreflightReport:
        """Run all checks. Takes as long as the slowest, and never longer than the time limits allow."""
        async with self._turns:
            probe = SourceProbe(spec.source, self._providers)
            try:
                results = await run_checks(self._checks(spec, probe))
            finally:
                await to_thread.run_sync(probe.close)
        return PreflightReport(
            pipeline=spec.name,
            valid=all(each.outcome is not CheckOutcome.FAILED for each in results),
            checks=results,
        )

    def _checks(self, spec: PipelineSpec, probe: SourceProbe) -> list[Check]:
        settings = self._settings
        url, stores = settings.connect.url, settings.stores
        answers, has_streams = ("source_reachable",), ("source_reachable", "replica_set")
        is_listed = ("source_reachable", "collections")
        plugin = self._with_template(partial(connect.plugin, url))
        validate = self._with_template(partial(self._validate, spec, probe))
        config_needs = ("source_reachable", "connector_plugin")
        return [
            Check("source_reachable", partial(source.reachable, probe), (), _SOURCE),
            Check("replica_set", partial(source.replica_set, probe), answers, _SOURCE),
            Check("privileges", partial(source.privileges, probe, spec), has_streams, _SOURCE),
            Check("oplog_window", partial(source.oplog, probe), has_streams, _SOURCE),
            Check("collections", partial(documents.collections, probe, spec), answers, _SOURCE),
            Check("document_sizes", partial(documents.document_sizes, probe, spec), is_listed, _SOURCE),
            Check("id_types", partial(documents.id_types, probe), is_listed, _SOURCE),
            Check("kafka", partial(kafka.kafka, settings.kafka.bootstrap_servers, spec), (), _KAFKA),
            Check("connect", partial(connect.answers, url), (), _CONNECT),
            Check("connector_plugin", plugin, ("connect",), _CONNECT),
            Check("connector_config", validate, config_needs, _CONNECT, connect.VALIDATION_TIMEOUT_S),
            Check("bucket_writable", partial(object_store.writable, stores, spec), (), _STORE),
            Check("target", partial(object_store.target, stores, spec), (), _STORE),
        ]

    def _with_template(self, check: Callable[[Mapping[str, str]], Finding]) -> Callable[[], Finding]:
        path = self._settings.api.connector_template
        return lambda: check(load_template(_configured(path, "CONNECTOR_TEMPLATE")))

    def _validate(self, spec: PipelineSpec, probe: SourceProbe, template: Mapping[str, str]) -> Finding:
        secrets = ConnectorSecrets(_configured(self._settings.api.connect_secrets_dir, "CONNECT_SECRETS_DIR"))
        kafka_servers = self._settings.kafka.bootstrap_servers
        return connect.configuration(self._settings.connect.url, template, secrets, kafka_servers, spec, probe)


async def run_checks(checks: Sequence[Check]) -> list[CheckResult]:
    """Run the checks, each as soon as those that it needs are done; their results in the order of `checks`."""
    results: dict[str, CheckResult] = {}
    done = {check.name: Event() for check in checks}
    limiter = CapacityLimiter(len(checks))

    async def run(check: Check) -> None:
        for name in check.needs:
            await done[name].wait()
        begun_s = time.monotonic()
        finding = _unmet(check, results) or await _found(check, limiter)
        duration_ms = round((time.monotonic() - begun_s) * 1000, 1)
        results[check.name] = CheckResult(
            name=check.name, outcome=finding.outcome, message=finding.message, duration_ms=duration_ms
        )
        done[check.name].set()

    async with anyio.create_task_group() as group:
        for check in checks:
            group.start_soon(run, check)
    return [results[check.name] for check in checks]


def _unmet(check: Check, results: Mapping[str, CheckResult]) -> Finding | None:
    met = (CheckOutcome.OK, CheckOutcome.WARNING)
    unmet = [name for name in check.needs if results[name].outcome not in met]
    return skipped(f"makes sense only once {unmet[0]} is ok") if unmet else None


async def _found(check: Check, limiter: CapacityLimiter) -> Finding:
    """What the check finds. It is left alone, its thread to its own time-outs, once its time is up."""
    with anyio.move_on_after(check.time_limit_s):
        try:
            return await to_thread.run_sync(check.run, abandon_on_cancel=True, limiter=limiter)
        except Transient as error:
            return failed(f"{_brief(error)}; {check.when_away}")
        except CdcError as error:
            return failed(_brief(error))
        except Exception as error:
            log.error("a check has failed unexpectedly", check=check.name, reason=shown(error))
            return failed(f"could not be checked: {shown(error)}")
    return failed(f"no answer within {check.time_limit_s:g} s; {check.when_away}")


def _brief(error: CdcError) -> str:
    text = str(error)
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}…"


def _configured(path: Path | None, variable: str) -> Path:
    if path is None:
        raise Fatal(f"{variable} is not set for the control plane: set it, and start the control plane again")
    return path
