"""The delta-writer: reads Kafka, writes Delta tables."""

import httpx

from local_stack.endpoints import endpoint_values
from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 3.0


def writer(stack: Stack) -> Part:
    return Part(
        name="writer",
        endpoint=stack.writer_url,
        check=lambda: check(stack.writer_url),
        command=(str(stack.layout.venv_bin / "delta-writer"), "run"),
        environment={
            **{name: value for name, value in endpoint_values(stack, prometheus=False).items() if value},
            "WRITER_CACHE_DIR": str(stack.layout.data / "writer"),
        },
        directory=stack.layout.data / "writer",
        needs=("mongodb", "kafka", "seaweedfs"),
        # It finishes the batch in hand.
        stop_within_s=60,
    )


def check(url: str) -> str:
    """`/ready`: it follows the specs and its pipelines make progress."""
    try:
        with httpx.Client(base_url=url, timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            answer = client.get("/ready")
    except httpx.HTTPError as error:
        raise NotReady(f"the delta-writer does not answer: {error}") from None
    if answer.status_code != httpx.codes.OK:
        raise NotReady(f"the delta-writer is not ready: {answer.text[:200]}")
    return "ready"
