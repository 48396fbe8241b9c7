"""Metrics: Prometheus, where it is installed."""

import shutil
from pathlib import Path

import httpx

from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 3.0
RETENTION = "7d"
HOW_TO_INSTALL = "Prometheus is not installed, metrics are not kept. On Debian or Ubuntu: apt-get install prometheus"


def installed() -> Path | None:
    path = shutil.which("prometheus")
    return Path(path) if path else None


def prometheus(stack: Stack, binary: Path) -> Part:
    data = stack.layout.data / "prometheus"
    config = stack.layout.config / "prometheus.yml"
    return Part(
        name="prometheus",
        endpoint=stack.prometheus_url,
        ready=lambda: check(stack.prometheus_url),
        command=(
            *(str(binary), f"--config.file={config}", f"--storage.tsdb.path={data}"),
            *(f"--storage.tsdb.retention.time={RETENTION}", f"--web.listen-address={stack.address('PROMETHEUS_PORT')}"),
        ),
        directory=data,
        files={config: stack.render("prometheus.yml")},
    )


def check(url: str) -> str:
    try:
        with httpx.Client(base_url=url, timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            client.get("/-/ready").raise_for_status()
            targets = client.get("/api/v1/targets", params={"state": "active"}).raise_for_status().json()["data"]
    except httpx.HTTPError as error:
        raise NotReady(f"Prometheus does not answer: {error}") from None
    active = targets["activeTargets"]
    return f"{sum(target['health'] == 'up' for target in active)} of {len(active)} targets up"
