"""Settings of the reconciliation service, read once from the environment."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, SecretStr

from cdc_shared.security.data_key import DataKeySettings
from cdc_shared.settings import (
    EnvironmentSettings,
    KafkaSettings,
    LoggingSettings,
    ObjectStoreSettings,
    SecretsSettings,
    TracingSettings,
    load_settings,
)
from reconciliation.reporters.notification_settings import NotificationSettings


class ServiceSettings(EnvironmentSettings):
    """What is the reconciliation service's alone."""

    postgres_dsn: SecretStr = Field(
        validation_alias="POSTGRES_DSN",
        description="the control plane's Postgres, for example postgresql://cdc:password@localhost:5432/cdc",
    )
    http_host: str = Field(
        default="127.0.0.1",
        validation_alias="RECONCILIATION_HTTP_HOST",
        description="the address that /health, /ready and /metrics are served on; 0.0.0.0 in a container",
    )
    http_port: int = Field(
        default=8091,
        ge=0,
        le=65535,
        validation_alias="RECONCILIATION_HTTP_PORT",
        description="the port of /health, /ready and /metrics; 0 picks a free one",
    )
    work_dir: Path = Field(
        default_factory=lambda: Path.home() / ".cache" / "cdc-reconciliation",
        validation_alias="RECONCILIATION_WORK_DIR",
        description="a directory for what runs have read so far, about 50 bytes a document and row; a killed run goes "
        "on from there, on another host only where both see the directory",
    )
    jobs_at_once: int = Field(
        default=2,
        ge=1,
        le=64,
        validation_alias="RECONCILIATION_JOBS_AT_ONCE",
        description="how many jobs one process works at a time; each may take a GB of memory",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        validation_alias="RECONCILIATION_WORKERS",
        description="processes that scan for one run; each takes a core",
    )
    dask_scheduler: str | None = Field(
        default=None,
        validation_alias="RECONCILIATION_DASK_SCHEDULER",
        pattern=r"^(tcp|tls|ws|wss)://\S+$",
        description="the address of a Dask scheduler, for example tcp://dask:8786; unset, this machine scans alone",
    )
    takeover_s: float = Field(
        default=30.0,
        ge=2.0,
        le=3600.0,
        validation_alias="RECONCILIATION_TAKEOVER_S",
        description="seconds of silence after which another process takes a job over",
    )
    instance_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=249,
        pattern=r"^[a-zA-Z0-9._-]+$",
        validation_alias="RECONCILIATION_INSTANCE_ID",
        description="a name that no other process has and that stays the same when this one restarts: it then goes on "
        "with its jobs at once, where others would wait for it to be silent",
    )
    report_retention_days: int = Field(
        default=90,
        ge=1,
        le=3650,
        validation_alias="RECONCILIATION_REPORT_RETENTION_DAYS",
        description="days after which reports and differences of runs go; the newest of each collection stay",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the service needs from its environment."""

    kafka: KafkaSettings
    stores: ObjectStoreSettings
    logging: LoggingSettings
    tracing: TracingSettings
    secrets: SecretsSettings
    data_key: DataKeySettings
    notifications: NotificationSettings
    service: ServiceSettings

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the environment. Raises `InvalidSettings` that names each wrong variable and how to set it."""
        return cls(
            load_settings(KafkaSettings),
            load_settings(ObjectStoreSettings),
            load_settings(LoggingSettings),
            load_settings(TracingSettings),
            load_settings(SecretsSettings),
            load_settings(DataKeySettings),
            load_settings(NotificationSettings),
            load_settings(ServiceSettings),
        )
