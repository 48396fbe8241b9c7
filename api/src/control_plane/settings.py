"""Settings of the control plane, read once from the environment."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from cdc_shared.delta.oldest_version import READERS_GRACE_S
from cdc_shared.security.data_key import DataKeySettings
from cdc_shared.security.references import REFERENCE_PATTERN
from cdc_shared.settings import (
    ConnectSettings,
    EnvironmentSettings,
    KafkaSettings,
    LoggingSettings,
    ObjectStoreSettings,
    SecretsSettings,
    TracingSettings,
    load_settings,
)

RATE_PATTERN = r"^[1-9]\d*/(second|minute|hour|day)$"


class ApiSettings(EnvironmentSettings):
    """What is the control plane's alone."""

    postgres_dsn: SecretStr = Field(
        validation_alias="POSTGRES_DSN",
        description="Postgres, for example postgresql://cdc:password@localhost:5432/cdc",
    )
    postgres_connections: int = Field(
        default=20, ge=4, le=500, validation_alias="API_POSTGRES_CONNECTIONS", description="connections at most"
    )
    host: str = Field(
        default="127.0.0.1",
        validation_alias="API_HOST",
        description="the address that the API is served on; 0.0.0.0 in a container",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, validation_alias="API_PORT", description="the API's port; 0 picks a free one"
    )
    signing_keys: str = Field(
        default="secret:api-signing-keys",
        pattern=REFERENCE_PATTERN,
        validation_alias="API_SIGNING_KEYS",
        description="a reference, secret:<name> or env:<VARIABLE>, to the keys that tokens are signed with",
    )
    admin_user: str = Field(
        default="admin",
        min_length=1,
        max_length=100,
        validation_alias="API_ADMIN_USER",
        description="the name of the first admin, made at the first start",
    )
    admin_password: SecretStr | None = Field(
        default=None,
        validation_alias="API_ADMIN_PASSWORD",
        description="the first admin's password; unset: one is generated and written to API_ADMIN_PASSWORD_FILE",
    )
    admin_password_file: Path | None = Field(
        default=None,
        validation_alias="API_ADMIN_PASSWORD_FILE",
        description="the file, made with mode 0600, that a generated password of the first admin is written to",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(),
        validation_alias="API_CORS_ORIGINS",
        description='origins of browsers\' pages that may call, as JSON: ["https://console.example"]; none by default',
    )
    trusted_proxies: str | None = Field(
        default=None,
        validation_alias="API_TRUSTED_PROXIES",
        description="addresses or networks of the proxies in front, comma-separated, whose X-Forwarded-For tells who "
        "calls; unset, nobody's does",
    )
    rate_limit: str = Field(
        default="600/minute",
        pattern=RATE_PATTERN,
        validation_alias="API_RATE_LIMIT",
        description="requests of one user, and of one address, for example 600/minute",
    )
    auth_rate_limit: str = Field(
        default="20/minute",
        pattern=RATE_PATTERN,
        validation_alias="API_AUTH_RATE_LIMIT",
        description="sign-ins from one address, for example 20/minute",
    )
    max_body_bytes: int = Field(
        default=1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        validation_alias="API_MAX_BODY_BYTES",
        description="the largest body of a request",
    )
    controller: bool = Field(
        default=True,
        validation_alias="API_CONTROLLER",
        description="whether this process may become the controller; of several that may, one is elected",
    )
    repair_self_approval: bool = Field(
        default=False,
        validation_alias="API_REPAIR_SELF_APPROVAL",
        description="whether who proposed a repair may approve it as well; for installations of a single admin",
    )
    connect_secrets_dir: Path | None = Field(
        default=None,
        validation_alias="CONNECT_SECRETS_DIR",
        description="the directory, shared with Kafka Connect's workers, that connectors read their secrets from",
    )
    connector_template: Path | None = Field(
        default=None,
        validation_alias="CONNECTOR_TEMPLATE",
        description="the template of connectors' configurations, config/kafka-connect/debezium-mongodb.json",
    )

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_exact(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in origins:
            raise ValueError("name each origin: * would let every page on the internet call with a user's token")
        return origins


class QuerySettings(EnvironmentSettings):
    """What questions to the tables may take (`POST /api/v1/query`)."""

    at_once: int = Field(
        default=2, ge=1, le=64, validation_alias="API_QUERIES_AT_ONCE", description="queries that run at the same time"
    )
    memory_mb: int = Field(
        default=1024,
        ge=128,
        le=1024 * 1024,
        validation_alias="API_QUERY_MEMORY_MB",
        description="memory of one query, before it spills to disk",
    )
    threads: int = Field(
        default=2, ge=1, le=256, validation_alias="API_QUERY_THREADS", description="threads of one query"
    )
    timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=READERS_GRACE_S,
        validation_alias="API_QUERY_TIMEOUT_S",
        description="seconds of one query; vacuum waits for no longer ones than an hour",
    )
    max_rows: int = Field(
        default=1_000_000, ge=1, validation_alias="API_QUERY_MAX_ROWS", description="rows of an answer at most"
    )
    max_answer_mb: int = Field(
        default=256, ge=1, le=64 * 1024, validation_alias="API_QUERY_MAX_ANSWER_MB", description="size of an answer"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the service needs from its environment."""

    api: ApiSettings
    kafka: KafkaSettings
    connect: ConnectSettings
    stores: ObjectStoreSettings
    secrets: SecretsSettings
    data_key: DataKeySettings
    logging: LoggingSettings
    tracing: TracingSettings
    queries: QuerySettings

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the environment. Raises `InvalidSettings` that names each wrong variable and how to set it."""
        return cls(
            load_settings(ApiSettings),
            load_settings(KafkaSettings),
            load_settings(ConnectSettings),
            load_settings(ObjectStoreSettings),
            load_settings(SecretsSettings),
            load_settings(DataKeySettings),
            load_settings(LoggingSettings),
            load_settings(TracingSettings),
            load_settings(QuerySettings),
        )
