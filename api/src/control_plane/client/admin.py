"""Users, roles, service tokens and the audit trail, through the API."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import TypeAdapter

from control_plane.client.connection import Connection
from control_plane.models.audit import AuditLog, AuditVerification
from control_plane.models.service_tokens import CreatedServiceToken, NewServiceToken, ServiceTokenView
from control_plane.models.users import CreatedUser, NewUser, RoleView, TemporaryPassword, UserChange, UserView

USERS: Final = "/api/v1/admin/users"
SERVICE_TOKENS: Final = "/api/v1/admin/service-tokens"
AUDIT: Final = "/api/v1/audit"
_ROLES: Final = TypeAdapter(list[RoleView])


class Users:
    """People who may sign in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Iterator[UserView]:
        """By name."""
        return self._connection.items(UserView, USERS)

    def roles(self) -> Iterable[RoleView]:
        """The roles, and what each may do."""
        return _ROLES.validate_json(self._connection.request("GET", "/api/v1/admin/roles").content)

    def create(self, user: NewUser) -> CreatedUser:
        """Add a user, who has to change the password at the first sign-in."""
        return self._connection.post(CreatedUser, USERS, user)

    def get(self, user: UUID) -> UserView:
        return self._connection.get(UserView, f"{USERS}/{user}")

    def change(self, user: UUID, change: UserChange) -> UserView:
        """Give other roles, or other pipelines to be limited to; what is left out stays."""
        body = change.model_dump(mode="json", exclude_unset=True)
        return UserView.model_validate_json(self._connection.request("PATCH", f"{USERS}/{user}", json=body).content)

    def disable(self, user: UUID) -> UserView:
        """Refuse the user from now on, and end all of the sessions."""
        return self._connection.post(UserView, f"{USERS}/{user}/disable")

    def enable(self, user: UUID) -> UserView:
        return self._connection.post(UserView, f"{USERS}/{user}/enable")

    def reset_password(self, user: UUID) -> str:
        """A temporary password in place of a forgotten one."""
        return self._connection.post(TemporaryPassword, f"{USERS}/{user}/reset-password").password


class ServiceTokens:
    """Tokens for machines."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Iterator[ServiceTokenView]:
        """Oldest first; revoked and expired ones too."""
        return self._connection.items(ServiceTokenView, SERVICE_TOKENS)

    def create(self, token: NewServiceToken) -> CreatedServiceToken:
        """Make one. Its `token` is shown this once."""
        return self._connection.post(CreatedServiceToken, SERVICE_TOKENS, token)

    def revoke(self, token: UUID) -> ServiceTokenView:
        return self._connection.post(ServiceTokenView, f"{SERVICE_TOKENS}/{token}/revoke")


class Audit:
    """Who did what."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(
        self, *, since: datetime | None = None, until: datetime | None = None, **filters: object
    ) -> Iterator[AuditLog]:
        """The newest first. Other filters are `user`, `action`, `resource` and `outcome`."""
        return self._connection.items(AuditLog, AUDIT, **_between(since, until), **filters)

    def export(
        self,
        form: Literal["csv", "jsonl"] = "csv",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        **filters: object,
    ) -> Iterator[str]:
        """The same as lines of text, the oldest first, as they arrive."""
        return self._connection.lines(f"{AUDIT}/export", format=form, **_between(since, until), **filters)

    def verify(self) -> AuditVerification:
        """Check that no entry was altered, removed or slipped in. The first part that is not intact, else the last."""
        part = self._connection.get(AuditVerification, f"{AUDIT}/verify")
        while part.intact and part.next is not None:
            part = self._connection.get(AuditVerification, f"{AUDIT}/verify", after=part.next)
        return part


def _between(since: datetime | None, until: datetime | None) -> dict[str, object]:
    return {"from": since and since.isoformat(), "to": until and until.isoformat()}
