"""What a connector needs around it: its configuration, the secrets that it names, the topics of its signals."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connector_config import render_connector_config
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.kafka.topics import ensure_connector_topics
from cdc_shared.models.common import PipelineSpec
from cdc_shared.security.references import resolve_reference
from cdc_shared.security.secret_provider import SecretProvider


class DebeziumSetup:
    """See `systems.ConnectorSetup`. Any thread may use it."""

    def __init__(
        self,
        template: Mapping[str, str],
        secrets: ConnectorSecrets,
        providers: Mapping[str, SecretProvider],
        bootstrap_servers: str,
    ) -> None:
        """`providers` resolve the references to connection strings."""
        self._template = template
        self._secrets = secrets
        self._providers = providers
        self._bootstrap_servers = bootstrap_servers

    def config(self, spec: PipelineSpec) -> Mapping[str, str]:
        """See `systems.ConnectorSetup`. It is another one as soon as the secret is, so that Connect takes it."""
        connection = resolve_reference(spec.source.connection, self._providers)
        return render_connector_config(
            self._template, spec, self._secrets.put(spec.name, connection), self._bootstrap_servers
        )

    def prepare(self, spec: PipelineSpec) -> None:
        """See `systems.ConnectorSetup`: brokers make no topics by themselves."""
        ensure_connector_topics(AdminClient({"bootstrap.servers": self._bootstrap_servers}), spec.name)

    def settled(self, name: str, config: Mapping[str, str]) -> None:
        """See `systems.ConnectorSetup`."""
        self._secrets.keep_only(name, config)
