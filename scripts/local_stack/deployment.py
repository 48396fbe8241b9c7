"""Deploying a pipeline's spec: its Debezium connector on Kafka Connect, then the spec itself for the delta-writer."""

from collections.abc import Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import load_template, render_connector_config
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.errors import CdcError
from cdc_shared.kafka.spec_topic import publish_spec
from cdc_shared.kafka.topics import ensure_connector_topics
from cdc_shared.models.common import PipelineSpec, load_spec
from cdc_shared.security.references import resolve_reference, secret_providers
from cdc_shared.settings import SecretsSettings
from local_stack.errors import StackError
from local_stack.layout import Layout

RUNNING_TIMEOUT_S = 90.0


def deploy(spec_file: Path, template_file: Path, endpoints: Mapping[str, str]) -> PipelineSpec:
    """Bring connector and pipeline to what `spec_file` says, and wait until the connector runs. May be repeated.

    `endpoints`: the contract of `.local/endpoints.env`, in which the spec's references are resolved too. Raises
    `StackError` with the reason.
    """
    bootstrap = endpoints["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        spec = load_spec(spec_file)
        secrets = SecretsSettings(
            file=Path(endpoints["CDC_SECRETS_FILE"]), key_file=Path(endpoints["CDC_SECRETS_KEY_FILE"])
        )
        connection = resolve_reference(spec.source.connection, secret_providers(secrets, endpoints))
        # Debezium reads its signals from one of them; brokers do not make topics by themselves.
        ensure_connector_topics(AdminClient({"bootstrap.servers": bootstrap}), spec.name)
        kept = ConnectorSecrets(Path(endpoints["CONNECT_SECRETS_DIR"]))
        settings = kept.put(spec.name, connection)
        config = render_connector_config(load_template(template_file), spec, settings, bootstrap)
        publish_spec(bootstrap, spec)
        with ConnectClient(endpoints["CONNECT_URL"], hide=kept.hide) as connect:
            connect.put_config(spec.name, config)
            status = connect.status(spec.name)
            if status is not None and status.failure is not None:
                connect.restart(spec.name)
            connect.wait_running(spec.name, RUNNING_TIMEOUT_S)
        kept.keep_only(spec.name, config)
    except CdcError as error:
        raise StackError(f"{spec_file.name} cannot be deployed: {error}") from None
    return spec


def spec_name(spec_file: Path) -> str:
    """The name of the pipeline that a file is the spec of. Raises `StackError`."""
    try:
        return load_spec(spec_file).name
    except CdcError as error:
        raise StackError(str(error)) from None


def connector_template(layout: Layout) -> Path:
    return layout.root / "config" / "kafka-connect" / "debezium-mongodb.json"
