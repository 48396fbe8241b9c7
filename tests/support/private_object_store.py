"""An object store of a test's own, which it may stop while the stack's goes on: SeaweedFS, as in the embedded stack."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.errors import CdcError
from cdc_shared.storage.object_store_admin import ObjectStoreAdmin

WEED = Path(sys.executable).parent / "weed"
BUCKET = "faults"
START_TIMEOUT_S = 60.0
GRPC_OFFSET = 10_000
"""SeaweedFS serves gRPC on each HTTP port plus this."""
PORTS = range(20_000, 32_000)  # below the ports that the system gives to outgoing connections


class PrivateObjectStore:
    """Started by `start`, killed by `kill`, started again on the same data and the same port by `start`."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
        self.stack = replace(
            stack,
            s3_endpoint=f"http://127.0.0.1:{self._ports['s3']}",
            access_key_id=secrets.token_hex(8),
            secret_access_key=secrets.token_hex(20),
            delta_root=f"s3://{BUCKET}/delta",
        )
        """The running stack with this store in place of its own."""

    def start(self) -> None:
        """Start it and wait until it takes and gives objects."""
        self._directory.mkdir(parents=True, exist_ok=True)
        identities = self._directory / "identities.json"
        identities.write_text(json.dumps(self._identities()))
        ports = self._ports
        with (self._directory / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(WEED), "server", f"-dir={self._directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *(f"-master.port={ports['master']}", f"-volume.port={ports['volume']}"),
                    *(f"-filer.port={ports['filer']}", "-s3", f"-s3.port={ports['s3']}", f"-s3.config={identities}"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false"),
                    *("-master.volumeSizeLimitMB=64", "-volume.max=50"),
                    *("-master.electionTimeout=400ms", "-master.heartbeatInterval=100ms"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_until(self._answers, START_TIMEOUT_S, "the private object store takes an object")

    def kill(self) -> None:
        """SIGKILL: connections break, new ones are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log_tail()
        try:
            asyncio.run(ObjectStoreAdmin(self.stack.object_store).ensure_bucket(BUCKET, encrypt=False))
            self._store().put("alive", b"yes")
        except (CdcError, BaseError, OSError):  # whatever a store says while it starts
            return False
        return True

    def _store(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=self.stack.s3_endpoint,
            access_key_id=self.stack.access_key_id,
            secret_access_key=self.stack.secret_access_key,
            region=self.stack.region,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "4s"},
            retry_config={"max_retries": 0},
        )

    def _identities(self) -> dict[str, object]:
        keys = {"accessKey": self.stack.access_key_id, "secretKey": self.stack.secret_access_key}
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        return {"identities": [{"name": "faults", "credentials": [keys], "actions": actions}]}

    def _log_tail(self) -> str:
        return "\n".join((self._directory / "weed.log").read_text(errors="replace").splitlines()[-20:])


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, each with its gRPC twin."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        if port not in found and _is_free(port) and _is_free(port + GRPC_OFFSET):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
