"""`.local/endpoints.env`: where everything is, a stable contract that tools and tests read."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from local_stack.credentials import DATA_KEY, SECRETS_FILE
from local_stack.errors import StackError
from local_stack.stack import REGION, Stack

HEADER = """\
# Written by `make up`; do not edit. Load it with: set -a; . .local/endpoints.env; set +a
# Holds the local stack's credentials: keep it to yourself.
"""
DEFAULT_ADMIN = "admin"


def endpoint_values(stack: Stack, *, prometheus: bool) -> dict[str, str]:
    """Every variable of the contract, in order. `prometheus`: it runs; otherwise its URL is empty."""
    secrets = stack.layout.secrets
    credentials = stack.credentials
    own = stack.settings.variables
    database = f"postgresql://cdc:{credentials.postgres_password}@{stack.address('POSTGRES_PORT')}/cdc"
    return {
        "MONGODB_URI": stack.mongodb_uri,
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka,
        "CONNECT_URL": stack.connect_url,
        "CONNECT_SECRETS_DIR": str(stack.layout.connect_secrets),
        "S3_ENDPOINT": stack.s3_url,
        "AWS_ACCESS_KEY_ID": credentials.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.s3_secret_access_key,
        "AWS_REGION": REGION,
        "S3_METRICS_URL": stack.s3_metrics_url,
        "DELTA_ROOT": stack.delta_root,
        "POSTGRES_DSN": database,
        "WRITER_URL": stack.writer_url,
        "WRITER_HTTP_PORT": str(stack.ports["WRITER_HTTP_PORT"]),
        "RECONCILIATION_URL": stack.reconciliation_url,
        "CDC_SECRETS_FILE": str(secrets / SECRETS_FILE),
        "CDC_SECRETS_KEY_FILE": str(secrets / "secrets.key"),
        "CDC_DATA_KEY": f"secret:{DATA_KEY}",
        "PROMETHEUS_URL": stack.prometheus_url if prometheus else "",
        "API_URL": stack.api_url,
        "API_ADMIN_USER": own.get("API_ADMIN_USER", DEFAULT_ADMIN),
        "API_ADMIN_PASSWORD": own.get("API_ADMIN_PASSWORD", credentials.api_admin_password),
    }


def render_endpoints(values: Mapping[str, str]) -> str:
    """The file's text: one `NAME=value` a line, quoted so that both a shell and dotenv read the same value.

    Raises `StackError` for a single quote or a backslash, which the two read differently.
    """
    unquotable = [name for name, value in values.items() if "'" in value or "\\" in value]
    if unquotable:
        raise StackError(f"{unquotable[0]} holds a single quote or a backslash: write it as %27 or %5C")
    return HEADER + "".join(f"{name}={shlex.quote(value) if value else ''}\n" for name, value in values.items())


def read_endpoints(path: Path) -> dict[str, str]:
    """What the running stack serves. Raises `StackError` when it has not been started."""
    if not path.exists():
        raise StackError("the stack has not been started in this checkout: run `make up`")
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}
