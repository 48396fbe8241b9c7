"""The object store: SeaweedFS with its S3 gateway, every object encrypted at rest (SSE-S3)."""

import asyncio
import json
import uuid
from datetime import timedelta
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store
from pydantic import SecretStr

from cdc_shared.errors import CdcError
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store_admin import ObjectStoreAdmin
from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.ports import GRPC_OFFSET, HOST
from local_stack.stack import REGION, Stack

VOLUME_SIZE_LIMIT_MB = 1024
MAX_VOLUMES = 200
"""Each bucket takes seven volumes when it is first written; they grow as they are filled."""
MEMORY_LIMIT = "384MiB"
"""Go's soft limit: the collector works harder near it."""
SOCKET_DIRECTORY = Path("/tmp")  # nosec B108
"""SeaweedFS's choice; nothing is made or read there, only deleted."""
STOP_WITHIN_S = 3
"""Then it is killed: it would wait 15 s for its own subscribers. What it has acknowledged is in its files by then."""


def object_store(stack: Stack) -> Part:
    data = stack.layout.data / "seaweedfs"
    identities = stack.layout.secrets / "s3-identities.json"
    ports = stack.ports

    return Part(
        name="seaweedfs",
        endpoint=stack.s3_url,
        ready=lambda: check(stack),
        command=(
            *(str(stack.layout.venv_bin / "weed"), "server", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}"),
            *(f"-master.port={ports['SEAWEEDFS_MASTER_PORT']}", f"-volume.port={ports['SEAWEEDFS_VOLUME_PORT']}"),
            *(f"-filer.port={ports['SEAWEEDFS_FILER_PORT']}", "-s3", f"-s3.port={ports['S3_PORT']}"),
            *(
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
                f"-s3.config={identities}",
            ),
            f"-metricsPort={ports['SEAWEEDFS_METRICS_PORT']}",
            # By default the master reports statistics to its makers.
            "-master.telemetry=false",
            *(f"-master.volumeSizeLimitMB={VOLUME_SIZE_LIMIT_MB}", f"-volume.max={MAX_VOLUMES}"),
            # Short, because there is one master: it waits this long for others before it serves again after a restart.
            *("-master.electionTimeout=400ms", "-master.heartbeatInterval=100ms"),
        ),
        # SeaweedFS encrypts with a key only when it has this one.
        environment={"WEED_S3_SSE_KEK": stack.credentials.s3_encryption_key, "GOMEMLIMIT": MEMORY_LIMIT},
        directory=data,
        files={identities: json.dumps(_identities(stack), indent=2) + "\n"},
        stop_within_s=STOP_WITHIN_S,
        after_ready=lambda: ensure_encrypted_bucket(stack),
    )


def check(stack: Stack) -> str:
    """Put an object and get it back. Before the bucket exists (first start) the gateway's answer to a listing has to
    do.
    """
    body = uuid.uuid4().bytes
    try:
        store = _store(stack)
        store.put(".stack-health", body)
        returned = bytes(store.get(".stack-health").bytes())
    except FileNotFoundError:
        return "serves, no bucket yet"
    except (BaseError, OSError) as error:
        raise NotReady(f"the object store does not answer: {str(error).splitlines()[0][:200]}") from None
    if returned != body:
        raise NotReady("the object store returned something else than was put")
    return "put and get"


def ensure_encrypted_bucket(stack: Stack) -> None:
    """The bucket of DELTA_ROOT, whose objects are encrypted unless a request says otherwise."""
    try:
        asyncio.run(ObjectStoreAdmin(store_settings(stack)).ensure_bucket(stack.settings.bucket, encrypt=True))
    except CdcError as error:
        raise NotReady(str(error)) from None


def store_settings(stack: Stack) -> ObjectStoreSettings:
    """The store as the platform's own clients are told of it."""
    return ObjectStoreSettings(
        endpoint=stack.s3_url,
        access_key_id=stack.credentials.s3_access_key_id,
        secret_access_key=SecretStr(stack.credentials.s3_secret_access_key),
        region=REGION,
        delta_root=stack.delta_root,
        metrics_url=stack.s3_metrics_url,
    )


def stray_sockets(ports: dict[str, int]) -> list[Path]:
    """Unix sockets that SeaweedFS makes in /tmp beside each port and leaves behind when it is killed."""
    names = {
        "S3_PORT": "s3",
        "SEAWEEDFS_MASTER_PORT": "master",
        "SEAWEEDFS_VOLUME_PORT": "volume",
        "SEAWEEDFS_FILER_PORT": "filer",
    }
    found = []
    for variable, name in names.items():
        port = ports[variable]
        plain, grpc = f"seaweedfs-{name}-{port}.sock", f"seaweedfs-{name}-grpc-{port + GRPC_OFFSET}.sock"
        found += [SOCKET_DIRECTORY / file for file in (plain, grpc) if (SOCKET_DIRECTORY / file).exists()]
    return found


def _store(stack: Stack) -> S3Store:
    return S3Store(
        stack.settings.bucket,
        endpoint=stack.s3_url,
        access_key_id=stack.credentials.s3_access_key_id,
        secret_access_key=stack.credentials.s3_secret_access_key,
        region=REGION,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "4s", "connect_timeout": "2s"},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=4)},
    )


def _identities(stack: Stack) -> dict[str, object]:
    keys = {"accessKey": stack.credentials.s3_access_key_id, "secretKey": stack.credentials.s3_secret_access_key}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    return {"identities": [{"name": "cdc", "credentials": [keys], "actions": actions}]}
