"""The delta-writer: reads Kafka, writes Delta tables."""

from collections.abc import Collection

import httpx

from local_stack.endpoints import endpoint_values
from local_stack.errors import NotReady
from local_stack.numerals import plural
from local_stack.parts.part import Part
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 3.0
NOT_FOR_THE_WRITER = ("POSTGRES_DSN", "API_", "CONNECT_SECRETS_")
"""How the names begin of what is the control plane's alone."""


def writer(stack: Stack) -> Part:
    endpoints = endpoint_values(stack, prometheus=False)
    return Part(
        name="writer",
        endpoint=stack.writer_url,
        ready=lambda: check_process(stack.writer_url),
        healthy=lambda: check_pipelines(stack.writer_url),
        command=(str(stack.layout.venv_bin / "delta-writer"), "run"),
        environment={
            **{
                name: value
                for name, value in {**stack.settings.variables, **endpoints}.items()
                if value and not name.startswith(NOT_FOR_THE_WRITER)
            },
            "WRITER_CACHE_DIR": str(stack.layout.data / "writer"),
            # The only writer: after a crash it goes on at once, without waiting for its own session to end.
            "WRITER_INSTANCE_ID": "embedded",
            # A named writer leaves no group when a pipeline ends: deletions wait for the end of its session.
            "WRITER_SESSION_TIMEOUT_S": "10",
        },
        directory=stack.layout.data / "writer",
        sources=tuple(stack.layout.root / package / "src" for package in ("shared", "delta-writer")),
        needs=("mongodb", "kafka", "seaweedfs"),
        # It finishes the batch in hand.
        stop_within_s=60,
    )


def check_process(url: str) -> str:
    """It answers; how its pipelines fare is another question: one that somebody's data has stopped stops no start."""
    _, pipelines = _ask(url, "/health")
    return plural(len(pipelines), "pipeline")


def check_pipelines(url: str) -> str:
    """It has read all specs, and every pipeline runs."""
    ready, pipelines = _ask(url, "/ready")
    stopped = [
        f"{name} is {status.get('state')}: {str(status.get('reason'))[:200]}"
        for name, status in pipelines.items()
        if status.get("state") != "running"
    ]
    if stopped or not ready:
        raise NotReady("; ".join(stopped) or "the delta-writer is still reading the specs")
    return running_pipelines(pipelines)


def running_pipelines(names: Collection[str]) -> str:
    """How many there are, and which: `2 pipelines running: fleet, shop`."""
    count = f"{plural(len(names), 'pipeline')} running"
    return f"{count}: {', '.join(sorted(names))}" if names else count


def _ask(url: str, path: str) -> tuple[bool, dict[str, dict[str, object]]]:
    """Whether all is well by that path, and the pipelines by name."""
    try:
        with httpx.Client(base_url=url, timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            answer = client.get(path)
            return answer.status_code == httpx.codes.OK, answer.json().get("pipelines", {})
    except (httpx.HTTPError, ValueError) as error:
        raise NotReady(f"the delta-writer does not answer: {error}") from None
