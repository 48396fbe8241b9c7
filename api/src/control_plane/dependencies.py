"""What endpoints may ask for in their signatures. All are coroutines: FastAPI would run each function in a thread."""

from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, Request

from control_plane.database import Connection
from control_plane.models.auth import Principal
from control_plane.platform import Platform
from control_plane.unit_of_work import UnitOfWork


async def _platform(request: Request) -> Platform:
    return cast(Platform, request.app.state.platform)


async def _principal(request: Request) -> Principal:
    return cast(Principal, request.state.audit.principal)


async def _later_work(request: Request) -> UnitOfWork:
    return cast(UnitOfWork, request.state.unit)


async def _work(request: Request) -> UnitOfWork:
    return await cast(UnitOfWork, request.state.unit).begin()


async def _reading(platform: Annotated[Platform, Depends(_platform)]) -> AsyncIterator[Connection]:
    async with platform.database.connection() as connection:
        yield connection


ThePlatform = Annotated[Platform, Depends(_platform)]
"""The services."""
CurrentPrincipal = Annotated[Principal, Depends(_principal)]
"""Who calls; of routes that are not public."""
Work = Annotated[UnitOfWork, Depends(_work)]
"""The request's transaction, with `.connection`; committed with the audit entry before the answer leaves."""
LaterWork = Annotated[UnitOfWork, Depends(_later_work)]
"""As `Work`, but not begun: for endpoints that take their time first, and must not hold a connection meanwhile."""
Reading = Annotated[Connection, Depends(_reading, scope="function")]
"""A connection for reading only, each statement for itself; given back before the answer is audited and sent."""
