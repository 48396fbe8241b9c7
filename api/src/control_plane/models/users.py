"""Users as admins see and change them."""

import re
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cdc_shared.models.common import PipelineName
from control_plane.permissions import Permission, Role

USER_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,98}[A-Za-z0-9])?")
MAX_SCOPE: Final = 1000

UserName = Annotated[str, StringConstraints(pattern=f"^{USER_NAME.pattern}$", max_length=100)]
Scope = Annotated[frozenset[PipelineName], Field(max_length=MAX_SCOPE)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewUser(_Body):
    """A user to create."""

    name: UserName = Field(examples=["maria"])
    roles: Annotated[frozenset[Role], Field(min_length=1)] = Field(examples=[["operator"]])
    password: str | None = Field(
        default=None,
        max_length=1024,
        description="left out: one is made and shown once; either must be changed at the first sign-in",
    )
    pipelines: Scope | None = Field(
        default=None, description="the only pipelines that this user may see and touch; null: all"
    )


class UserChange(_Body):
    """What to change of a user; what is left out stays as it is."""

    roles: Annotated[frozenset[Role], Field(min_length=1)] = Field(default=frozenset(), examples=[["analyst"]])
    pipelines: Scope | None = Field(default=None, description="null: all")


class UserView(BaseModel):
    """A user."""

    id: UUID
    name: str
    roles: list[Role]
    permissions: list[Permission]
    pipelines: list[str] | None
    """The only ones that this user may see and touch; null: all."""
    disabled: bool
    must_change_password: bool
    created_at: datetime
    password_changed_at: datetime
    last_login_at: datetime | None


class CreatedUser(UserView):
    """A user who was just created."""

    password: str | None = Field(description="where it was made here: shown this once; it must be changed first")


class TemporaryPassword(BaseModel):
    """What a reset gives: the old password is good no more, all sessions have ended."""

    password: str = Field(description="shown this once; it must be changed at the next sign-in")


class RoleView(BaseModel):
    """A role, and what it may do."""

    name: Role
    description: str
    permissions: list[Permission]
