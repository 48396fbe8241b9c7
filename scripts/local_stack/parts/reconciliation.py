"""The reconciliation service: compares tables with their collections, and repairs what was approved."""

from typing import Any

import httpx

from local_stack.endpoints import endpoint_values
from local_stack.errors import NotReady
from local_stack.numerals import plural
from local_stack.parts.part import Part
from local_stack.ports import HOST
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 3.0
NOT_ITS_OWN = ("API_", "CONNECT_", "WRITER_")
"""How the names begin of what is the control plane's or the writer's alone."""


def reconciliation(stack: Stack) -> Part:
    endpoints = endpoint_values(stack, prometheus=False)
    return Part(
        name="reconciliation",
        endpoint=stack.reconciliation_url,
        ready=lambda: check_process(stack.reconciliation_url),
        healthy=lambda: check_work(stack.reconciliation_url),
        command=(str(stack.layout.venv_bin / "cdc-reconciliation"), "serve"),
        environment={
            **{
                name: value
                for name, value in {**stack.settings.variables, **endpoints}.items()
                if value and not name.startswith(NOT_ITS_OWN)
            },
            "RECONCILIATION_HTTP_HOST": HOST,
            "RECONCILIATION_HTTP_PORT": str(stack.ports["RECONCILIATION_HTTP_PORT"]),
            "RECONCILIATION_WORK_DIR": str(stack.layout.data / "reconciliation"),
            # The only one: after a crash it goes on at once with what it had in hand.
            "RECONCILIATION_INSTANCE_ID": "embedded",
            "RECONCILIATION_LINK_URL": stack.api_url,
        },
        directory=stack.layout.data / "reconciliation",
        sources=tuple(stack.layout.root / package / "src" for package in ("shared", "reconciliation")),
        # It waits for the tables that the API makes, and says in /ready what else it misses.
        needs=("postgres", "kafka", "seaweedfs", "api"),
        # It gives back what it has in hand.
        stop_within_s=40,
    )


def check_process(url: str) -> str:
    """It answers and looks for work."""
    status, _ = _ask(url, "/health")
    if status != httpx.codes.OK:
        raise NotReady("the reconciliation service stands still")
    return "answers"


def check_work(url: str) -> str:
    """It reaches what it needs to take jobs."""
    status, answer = _ask(url, "/ready")
    if status != httpx.codes.OK:
        raise NotReady("; ".join(answer.get("waits_for", {}).values()) or "the reconciliation service is starting")
    return f"{plural(answer.get('jobs_under_way', 0), 'job')} under way"


def _ask(url: str, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with httpx.Client(base_url=url, timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            answer = client.get(path)
            return answer.status_code, answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotReady(f"the reconciliation service does not answer: {error}") from None
