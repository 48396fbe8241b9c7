"""The stack's own control plane, for the commands that work through it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from cdc_shared.errors import CdcError
from control_plane.client.control_plane import ControlPlane
from control_plane.client.errors import NotFound, Unauthorized
from local_stack.errors import StackError

DELETED_WITHIN_S = 120.0
ANSWER_TIMEOUT_S = 5.0


@contextmanager
def control_plane(endpoints: Mapping[str, str]) -> Iterator[ControlPlane]:
    """The control plane of `.local/endpoints.env`, signed in as its admin. What goes wrong is a `StackError`."""
    _require_answer(endpoints.get("API_URL", ""))
    try:
        with ControlPlane.from_environment(endpoints) as api:
            yield api
    except Unauthorized as error:
        raise StackError(
            f"the API does not let {endpoints.get('API_ADMIN_USER')} in ({error}). Has the password been changed? Set "
            "API_ADMIN_PASSWORD in .env to the new one and run `make up`. Is it lost? `cdc-control-plane create-admin` "
            "gives another"
        ) from None
    except CdcError as error:
        raise StackError(str(error)) from None


def has_pipeline(endpoints: Mapping[str, str], name: str) -> bool:
    """Whether the pipeline is the control plane's: then only it may change the connector and the spec."""
    with control_plane(endpoints) as api:
        try:
            api.pipelines.get(name)
        except NotFound:
            return False
    return True


def delete_pipeline(endpoints: Mapping[str, str], name: str) -> None:
    """Have the control plane take the pipeline down, whatever its state, and wait until it is gone; its tables stay."""
    with control_plane(endpoints) as api:
        api.pipelines.wait_for(api.pipelines.delete(name, force=True), DELETED_WITHIN_S)


def _require_answer(url: str) -> None:
    """Say at once that nothing runs there, where the client would wait for it to come back."""
    try:
        httpx.get(f"{url}/health", timeout=ANSWER_TIMEOUT_S, trust_env=False)
    except (httpx.TransportError, httpx.UnsupportedProtocol):
        raise StackError("the stack is not running: run `make up` first") from None
