"""Who calls, and what people sign in with."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

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


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignInForm(_Body):
    """OAuth 2's password form (RFC 6749, 4.3). Clients and scopes are accepted and mean nothing here."""

    grant_type: Literal["password"] = "password"
    username: str = Field(min_length=1, max_length=200, examples=["admin"])
    password: str = Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})
    scope: str = Field(default="", max_length=1024)
    client_id: str | None = Field(default=None, max_length=200)
    client_secret: str | None = Field(default=None, max_length=1024)


class RefreshRequest(_Body):
    refresh_token: str = Field(min_length=1, max_length=200)


class PasswordChange(_Body):
    current_password: str = Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})
    new_password: str = Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})


class Tokens(BaseModel):
    """What a sign-in or a refresh gives."""

    access_token: str
    """A bearer token for every other call."""
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    """How long the access token is good, in seconds."""
    refresh_token: str
    """Good once, for new tokens."""
    must_change_password: bool
    """Nothing else is allowed before."""


class Me(BaseModel):
    """Who is signed in, and what they may do."""

    id: UUID
    name: str
    kind: Literal["user", "service"]
    roles: list[Role]
    permissions: list[Permission]
    pipelines: list[str] | None
    """The only ones that one may see and touch; null: all."""
    must_change_password: bool
    at: datetime
    """The server's clock."""
