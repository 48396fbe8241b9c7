"""Service tokens as admins see and make them."""

from datetime import datetime
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from control_plane.models.users import Scope
from control_plane.permissions import GLOBAL, OF_EVERYONE, OF_PEOPLE, Permission

MAX_DAYS: Final = 366
TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,99}$")]


class NewServiceToken(BaseModel):
    """A token for a machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TokenName = Field(examples=["deploy-bot"])
    permissions: Annotated[frozenset[Permission], Field(min_length=1)] = Field(examples=[["pipelines:read"]])
    pipelines: Scope | None = Field(default=None, description="the only pipelines that it may see and touch; null: all")
    expires_in_days: int = Field(default=90, ge=1, le=MAX_DAYS)

    @model_validator(mode="after")
    def _can_be_a_machines(self) -> Self:
        if refused := self.permissions & (OF_PEOPLE | OF_EVERYONE):
            raise ValueError(f"no service token may have {', '.join(sorted(refused))}: that is for people")
        if self.pipelines is not None and (everything := self.permissions & GLOBAL):
            raise ValueError(f"{', '.join(sorted(everything))} cannot be limited to pipelines: leave one of them out")
        return self


class ServiceTokenView(BaseModel):
    """A token without the token."""

    id: UUID
    name: str
    prefix: str
    """Its first characters."""
    permissions: list[Permission]
    pipelines: list[str] | None
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


class CreatedServiceToken(ServiceTokenView):
    """A token that was just made."""

    token: str = Field(description="shown this once; send it as a bearer token")
