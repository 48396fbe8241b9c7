"""Settings that services share, read once from the environment into frozen objects.

Each class is one concern; a service loads the ones it needs with `load_settings` and passes them down. A missing or
wrong variable ends the start with an `InvalidSettings` that names the variable and how to set it, and never shows a
value.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cdc_shared.errors import Fatal


class InvalidSettings(Fatal):
    """The environment does not hold what the service needs to start."""


class EnvironmentSettings(BaseSettings):
    """Base of every settings class: frozen, from the environment only, empty variables count as unset.

    Each field carries its variable's name as `validation_alias` and says in `description` how to set it.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, populate_by_name=True
    )


class KafkaSettings(EnvironmentSettings):
    bootstrap_servers: str = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        pattern=r"^\s*[^\s,]+:\d+(\s*,\s*[^\s,]+:\d+)*\s*$",
        description="comma-separated host:port of the brokers, for example localhost:9092",
    )
    pipelines_topic: str = Field(
        default="cdc.pipelines",
        validation_alias="CDC_PIPELINES_TOPIC",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="the topic that pipeline specs are published to; writers on another one run others",
    )


class ConnectSettings(EnvironmentSettings):
    """How Kafka Connect is reached, for what has to tell it something."""

    url: str = Field(
        validation_alias="CONNECT_URL",
        pattern=r"^https?://[^\s/]+/?$",
        description="the URL of Kafka Connect's REST interface, for example http://localhost:8083",
    )


class ObjectStoreSettings(EnvironmentSettings):
    """How S3-compatible stores are reached. Google and Azure read their own usual variables; local paths none."""

    endpoint: str | None = Field(
        default=None,
        validation_alias="S3_ENDPOINT",
        pattern=r"^https?://[^\s/]+/?$",
        description="the store's URL, for example http://localhost:8333; leave it unset for AWS S3 itself",
    )
    access_key_id: str | None = Field(
        default=None, validation_alias="AWS_ACCESS_KEY_ID", description="the access key's id, given by the store"
    )
    secret_access_key: SecretStr | None = Field(
        default=None,
        validation_alias="AWS_SECRET_ACCESS_KEY",
        description="the access key's secret, given by the store",
    )
    session_token: SecretStr | None = Field(
        default=None, validation_alias="AWS_SESSION_TOKEN", description="only with temporary AWS credentials"
    )
    region: str = Field(default="us-east-1", validation_alias="AWS_REGION", description="for example eu-central-1")
    delta_root: str | None = Field(
        default=None,
        validation_alias="DELTA_ROOT",
        description="where the tables go, for example s3://lake/delta or /var/lib/lake",
    )

    metrics_url: str | None = Field(
        default=None,
        validation_alias="S3_METRICS_URL",
        pattern=r"^https?://\S+$",
        description="the Prometheus page of a SeaweedFS volume server or a MinIO cluster, for its free capacity",
    )

    @property
    def allow_http(self) -> bool:
        """True only when the endpoint itself says http: TLS is never dropped in silence."""
        return self.endpoint is not None and self.endpoint.startswith("http://")

    def root_for(self, sink_root: str | None) -> str:
        """Where a pipeline's tables go: its own `sink.root`, else DELTA_ROOT. `InvalidSettings` when neither is set."""
        root = sink_root or self.delta_root
        if root is None:
            raise InvalidSettings(
                "no place for the tables: set DELTA_ROOT (for example s3://lake/delta) or the pipeline's sink.root"
            )
        return root

    def storage_options(self) -> dict[str, str]:
        """The same store for delta-rs and Polars (`storage_options=`). Holds the secret: never log it."""
        options = {
            "AWS_REGION": self.region,
            "aws_conditional_put": "etag",  # put-if-absent by If-None-Match: safe commits without a lock table
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false" if self.endpoint else "true",
        }
        if self.endpoint:
            options["AWS_ENDPOINT_URL"] = self.endpoint.rstrip("/")
        if self.allow_http:
            options["AWS_ALLOW_HTTP"] = "true"
        if self.access_key_id:
            options["AWS_ACCESS_KEY_ID"] = self.access_key_id
        if self.secret_access_key:
            options["AWS_SECRET_ACCESS_KEY"] = self.secret_access_key.get_secret_value()
        if self.session_token:
            options["AWS_SESSION_TOKEN"] = self.session_token.get_secret_value()
        return options


class LoggingSettings(EnvironmentSettings):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", validation_alias="LOG_LEVEL", description="DEBUG, INFO, WARNING, ERROR or CRITICAL"
    )
    format: Literal["json", "console"] = Field(
        default="json", validation_alias="LOG_FORMAT", description="json (one line an event) or console (for people)"
    )

    @field_validator("level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class TracingSettings(EnvironmentSettings):
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern=r"^https?://\S+$",
        description="base URL of an OTLP/HTTP collector, for example http://localhost:4318; unset turns tracing off",
    )


class SecretsSettings(EnvironmentSettings):
    """Where the encrypted secrets file and its key are. With neither set, only `env:` references can be resolved."""

    file: Path | None = Field(
        default=None, validation_alias="CDC_SECRETS_FILE", description="path of the encrypted secrets file"
    )
    key_file: Path | None = Field(
        default=None, validation_alias="CDC_SECRETS_KEY_FILE", description="path of its key, a file of mode 0600"
    )
    key: SecretStr | None = Field(
        default=None, validation_alias="CDC_SECRETS_KEY", description="the key itself, 32 bytes in base64"
    )


S = TypeVar("S", bound=EnvironmentSettings)


def load_settings(settings: type[S]) -> S:
    """Read `settings` from the environment; `InvalidSettings` names every variable at fault and how to set it."""
    try:
        return settings()
    except ValidationError as error:
        lines = [
            _problem(settings, item["loc"], item["type"], item["msg"]) for item in error.errors(include_input=False)
        ]
        raise InvalidSettings("the environment is not complete: " + "; ".join(lines)) from None


def _problem(settings: type[EnvironmentSettings], loc: tuple[int | str, ...], kind: str, message: str) -> str:
    if not loc:
        return message
    name = str(loc[0])
    for field_name, field in settings.model_fields.items():
        if name in (field_name, field.validation_alias):
            what = "is not set" if kind == "missing" else f"is not valid ({message})"
            return f"{field.validation_alias} {what}: set it to {field.description}"
    return f"{name}: {message}"
