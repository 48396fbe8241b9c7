"""The control plane: the API, and the controller that drives Kafka Connect and the writers."""

from typing import Any

import httpx

from local_stack.endpoints import endpoint_values
from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.ports import HOST
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 4.0


def api(stack: Stack) -> Part:
    root = stack.layout.root
    return Part(
        name="api",
        endpoint=stack.api_url,
        ready=lambda: check_process(stack.api_url),
        healthy=lambda: check_dependencies(stack.api_url),
        command=(str(stack.layout.venv_bin / "cdc-control-plane"), "serve"),
        environment={
            **stack.settings.variables,
            **{name: value for name, value in endpoint_values(stack, prometheus=False).items() if value},
            "CONNECTOR_TEMPLATE": str(root / "config" / "kafka-connect" / "debezium-mongodb.json"),
            "API_HOST": HOST,
            "API_PORT": str(stack.ports["API_PORT"]),
        },
        directory=stack.layout.data / "api",
        sources=(root / "shared" / "src", root / "api" / "src", root / "api" / "migrations"),
        # It starts without the others and says in /ready what it misses.
        needs=("postgres",),
        # It answers the requests in hand, and gives the controller's place to another.
        stop_within_s=30,
    )


def check_process(url: str) -> str:
    """It answers; what it depends on is another question."""
    status, _ = _ask(url, "/health")
    if status != httpx.codes.OK:
        raise NotReady(f"the API is not well: /health says {status}")
    return "answers"


def check_dependencies(url: str) -> str:
    """It reaches all that it works with."""
    status, answer = _ask(url, "/ready")
    parts = answer.get("dependencies", [])
    missing = [f"{part['name']} is {part['state']}" for part in parts if part["state"] != "ok"]
    if missing or status != httpx.codes.OK:
        raise NotReady("; ".join(missing) or f"/ready says {status}")
    return f"reaches {', '.join(sorted(part['name'] for part in parts))}"


def _ask(url: str, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with httpx.Client(base_url=url, timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            answer = client.get(path)
            return answer.status_code, answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotReady(f"the API does not answer: {error}") from None
