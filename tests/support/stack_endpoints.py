"""Where the running stack is: the endpoints contract that `make up` writes, as tests read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from cdc_shared.security import crypto
from cdc_shared.security.data_key import DataKeys
from cdc_shared.settings import ObjectStoreSettings

ENDPOINTS_FILE = Path(__file__).parents[2] / ".local" / "endpoints.env"

DATA_KEY = crypto.encode_key(crypto.generate_key())
"""What this run's writers encrypt dead letters with: nobody else's, and gone with it."""
DATA_KEY_ENVIRONMENT = {"CDC_DATA_KEY": "env:TESTS_DATA_KEY", "TESTS_DATA_KEY": DATA_KEY}

REQUIRED = (
    "MONGODB_URI",
    "KAFKA_BOOTSTRAP_SERVERS",
    "CONNECT_URL",
    "CONNECT_SECRETS_DIR",
    "S3_ENDPOINT",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "DELTA_ROOT",
    "WRITER_URL",
)


class StackNotUp(Exception):
    """The stack is not running, or the environment does not say where it is."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One running stack. Secrets do not show in its repr, so that pytest never prints them."""

    mongodb_uri: str = field(repr=False)
    kafka: str
    connect_url: str
    connect_secrets_dir: Path
    s3_endpoint: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    region: str
    delta_root: str
    writer_url: str

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, endpoints_file: Path = ENDPOINTS_FILE
    ) -> Stack:
        """What the environment says, completed from `.local/endpoints.env`. Raises `StackNotUp` with the remedy."""
        written = {k: v for k, v in dotenv_values(endpoints_file, interpolate=False).items() if v}
        values = written | {k: v for k, v in environment.items() if v}
        if missing := [name for name in REQUIRED if name not in values]:
            raise StackNotUp(f"nothing says where the stack is ({', '.join(missing)} not set): run `make up` first")
        return cls(
            mongodb_uri=values["MONGODB_URI"],
            kafka=values["KAFKA_BOOTSTRAP_SERVERS"],
            connect_url=values["CONNECT_URL"],
            connect_secrets_dir=Path(values["CONNECT_SECRETS_DIR"]),
            s3_endpoint=values["S3_ENDPOINT"],
            access_key_id=values["AWS_ACCESS_KEY_ID"],
            secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
            region=values.get("AWS_REGION", "us-east-1"),
            delta_root=values["DELTA_ROOT"],
            writer_url=values["WRITER_URL"],
        )

    @property
    def object_store(self) -> ObjectStoreSettings:
        """The store's settings, as the services read them from their environment."""
        return ObjectStoreSettings(
            endpoint=self.s3_endpoint,
            region=self.region,
            access_key_id=self.access_key_id,
            secret_access_key=SecretStr(self.secret_access_key),
            delta_root=self.delta_root,
        )

    @property
    def data_keys(self) -> DataKeys:
        """The keys that the tests' writers use."""
        return DataKeys([crypto.decode_key(DATA_KEY, "DATA_KEY")])

    @property
    def tests_root(self) -> str:
        """Where tests put their tables: beside the platform's own, in the same bucket."""
        return f"{self.delta_root.rstrip('/').rpartition('/')[0]}/tests"

    @property
    def writer_environment(self) -> dict[str, str]:
        """What a delta-writer process needs to know of the stack."""
        return {
            "MONGODB_URI": self.mongodb_uri,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "CONNECT_URL": self.connect_url,
            "S3_ENDPOINT": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "DELTA_ROOT": self.delta_root,
            **DATA_KEY_ENVIRONMENT,
        }
