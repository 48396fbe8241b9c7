"""Who calls, and what people sign in with."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from control_plane.permissions import Permission, Role


@dataclass(frozen=True, slots=True)
class Principal:
    """The user or the machine that a request comes from, as the database knows it at that moment."""

    id: UUID
    """Of the user, or of the service token."""
    name: str
    kind: Literal["user", "service"]
    roles: frozenset[Role]
    permissions: frozenset[Permission]
    pipelines: frozenset[str] | None = None
    """The only pipelines that it may see and touch; None: all."""
    session: UUID | None = None
    """The sign-in that the access token belongs to; None for a service token."""
    must_change_password: bool = False

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def may_touch(self, pipeline: str) -> bool:
        return self.pipelines is None or pipeline in self.pipelines
