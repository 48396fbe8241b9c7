"""Settings of the delta-writer, read once from the environment."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from cdc_shared.dead_letters.letter_topic import RETENTION_DAYS
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


class WriterSettings(EnvironmentSettings):
    """What is the delta-writer's alone."""

    http_host: str = Field(
        default="127.0.0.1",
        validation_alias="WRITER_HTTP_HOST",
        description="the address that /health, /ready and /metrics are served on; 0.0.0.0 in a container",
    )
    http_port: int = Field(
        default=8090,
        ge=0,
        le=65535,
        validation_alias="WRITER_HTTP_PORT",
        description="the port of /health, /ready and /metrics; 0 picks a free one",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path.home() / ".cache" / "cdc-delta-writer",
        validation_alias="WRITER_CACHE_DIR",
        description="a local directory for the key indexes, and for files while they are rewritten (up to three times "
        "maintenance.target_file_mb); it may be deleted while the writer is stopped",
    )
    session_timeout_s: float = Field(
        default=30.0,
        ge=1.0,
        le=1800.0,
        validation_alias="WRITER_SESSION_TIMEOUT_S",
        description="seconds after which the other writers take over from one that is silent; within the brokers' "
        "group.min.session.timeout.ms (6 s unless set) and group.max.session.timeout.ms",
    )
    collection_watch_s: float = Field(
        default=30.0,
        ge=1.0,
        validation_alias="WRITER_COLLECTION_WATCH_S",
        description="seconds between two looks at the source's collections, for drops, renames and re-creations",
    )
    instance_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=249,
        pattern=r"^[a-zA-Z0-9._-]+$",
        validation_alias="WRITER_INSTANCE_ID",
        description="a name that no other writer has and that stays the same when this one restarts (its host's, or "
        "its pod's in a stateful set): a restart then goes on at once, where Kafka would otherwise wait for the "
        "killed one's session to end; a stopped writer's tables likewise wait that long for another one",
    )
    dead_letter_retention_days: int = Field(
        default=RETENTION_DAYS,
        ge=1,
        le=3650,
        validation_alias="WRITER_DEAD_LETTER_RETENTION_DAYS",
        description="days after which dead letters are deleted",
    )
    connect_url: str | None = Field(
        default=None,
        validation_alias="CONNECT_URL",
        pattern=r"^https?://\S+$",
        description="the URL of a Kafka Connect worker, for example http://localhost:8083; only pipelines with "
        "watermark.source: resume_token need it",
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
    writer: WriterSettings

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
            load_settings(WriterSettings),
        )
