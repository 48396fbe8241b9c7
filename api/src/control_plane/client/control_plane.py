"""The control plane as a Python object."""

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from cdc_shared.errors import Fatal
from control_plane.client.account import Account
from control_plane.client.admin import Audit, ServiceTokens, Users
from control_plane.client.connection import Connection
from control_plane.client.pipelines import Pipelines
from control_plane.client.quality import DeadLetters, Rules
from control_plane.client.reconciliation import Reconciliation
from control_plane.client.session import Password, ServiceToken
from control_plane.client.tables import Tables
from control_plane.models.monitoring import PlatformMetrics

_REMEDY: Final = "set API_URL, and API_TOKEN or API_ADMIN_USER and API_ADMIN_PASSWORD"


class ControlPlane:
    """What the API offers, by subject. Threads may share it; close it when done.

        with ControlPlane.from_environment(os.environ) as api:
            for pipeline in api.pipelines.list(state="failed"):
                print(pipeline.name, api.pipelines.status(pipeline.name))

    It signs in when the first call needs it and stays signed in. Calls raise `ApiError`, by kind: `NotFound`,
    `Conflict`, `Stale`, `Invalid`, `Forbidden`, `Unauthorized`, `Unavailable`.
    """

    def __init__(self, connection: Connection) -> None:
        """`connection` is closed with this object."""
        self._connection = connection
        self.account = Account(connection)
        self.users = Users(connection)
        self.service_tokens = ServiceTokens(connection)
        self.audit = Audit(connection)
        self.pipelines = Pipelines(connection)
        self.rules = Rules(connection)
        self.dead_letters = DeadLetters(connection)
        self.reconciliation = Reconciliation(connection)
        self.tables = Tables(connection)

    @classmethod
    def open(cls, url: str, credentials: Password | ServiceToken) -> Self:
        """Nothing is sent before the first call."""
        return cls(Connection(url, credentials))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The control plane at `API_URL`; as `API_TOKEN` says, else as `API_ADMIN_USER` with `API_ADMIN_PASSWORD`.

        Raises `Fatal` naming what is not set.
        """
        url = environment.get("API_URL")
        if not url:
            raise Fatal(f"API_URL is not set: {_REMEDY}")
        if token := environment.get("API_TOKEN"):
            return cls.open(url, ServiceToken(token))
        user, password = environment.get("API_ADMIN_USER"), environment.get("API_ADMIN_PASSWORD")
        if not user or not password:
            raise Fatal(f"nobody to sign in as: {_REMEDY}")
        return cls.open(url, Password(user, password))

    def metrics(self) -> PlatformMetrics:
        """Lag, throughput and errors of all pipelines that one may see, and the parts that they run on."""
        return self._connection.get(PlatformMetrics, "/api/v1/metrics")

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
