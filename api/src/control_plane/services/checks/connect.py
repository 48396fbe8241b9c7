"""Whether Kafka Connect answers, has the connector, and takes the configuration that the pipeline would get."""

from collections.abc import Mapping
from typing import Final

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import render_connector_config
from cdc_shared.connect.connector_secrets import (
    CONNECTION_STRING,
    ConnectorSecrets,
    connection_settings,
    hide_values,
)
from cdc_shared.errors import CdcError, Fatal
from cdc_shared.logging.redaction import redact_text
from cdc_shared.models.common import PipelineSpec
from control_plane.services.checks.check import Finding, failed, ok, some
from control_plane.services.checks.source_probe import SourceProbe

ANSWER_TIMEOUT_S: Final = 5.0
VALIDATION_TIMEOUT_S: Final = 20.0
"""The connector's plugin connects to the source for it."""
UNREADABLE: Final = "Could not read properties"
NO_CONNECTION_STRING: Final = "Invalid connection string"
"""What the plugin says of a placeholder that nobody has resolved: we have seen ourselves that the string is one."""


def answers(url: str) -> Finding:
    """A worker answers."""
    with ConnectClient(url, timeout_s=ANSWER_TIMEOUT_S) as connect:
        plugins = connect.plugins()
    return ok(f"Kafka Connect answers, with {len(plugins)} plugins")


def plugin(url: str, template: Mapping[str, str]) -> Finding:
    """The worker has the connector that the template names."""
    wanted = template["connector.class"]
    with ConnectClient(url, timeout_s=ANSWER_TIMEOUT_S) as connect:
        found = connect.plugins()
    if wanted not in found:
        return failed(f"Kafka Connect does not have {wanted}: put Debezium's MongoDB connector on its plugin.path")
    return ok(f"Kafka Connect has {wanted.rpartition('.')[2]}")


def configuration(
    url: str,
    template: Mapping[str, str],
    secrets: ConnectorSecrets,
    bootstrap_servers: str,
    spec: PipelineSpec,
    probe: SourceProbe,
) -> Finding:
    """Connect and the plugin accept the configuration; its secrets go by a file, as they will, that is then removed."""
    known = connection_settings(probe.connection)

    def hide(_: str, text: str) -> str:
        return redact_text(hide_values(known, text))

    with (
        ConnectClient(url, timeout_s=VALIDATION_TIMEOUT_S, hide=hide) as connect,
        secrets.lent(probe.connection) as lent,
    ):
        config = render_connector_config(template, spec, lent, bootstrap_servers)
        try:
            refused = connect.validate(spec.name, config)
        except CdcError as error:
            if UNREADABLE in str(error):
                raise Fatal(
                    "Kafka Connect's worker cannot read the file with the connector's secrets: it must see "
                    "CONNECT_SECRETS_DIR under the same path, as the same user, and name it in "
                    "config.providers.file.param.allowed.paths"
                ) from None
            raise
    if any(NO_CONNECTION_STRING in text for text in refused.get(CONNECTION_STRING, ())):
        return failed(
            "Kafka Connect's worker leaves ${file:…} as it is: set config.providers=file and "
            "config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider in its properties"
        )
    if refused:
        return failed(
            "Kafka Connect refuses the configuration: "
            + some([f"{setting}: {' '.join(messages)}" for setting, messages in sorted(refused.items())])
        )
    return ok("Kafka Connect accepts the configuration, and reaches the source with it")
