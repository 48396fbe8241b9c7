"""Users, roles and service tokens, for admins."""

from typing import Any
from uuid import UUID

from fastapi import Response

from control_plane.dependencies import CurrentPrincipal, LaterWork, Reading, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.pages import Cursor, Limit, Page
from control_plane.models.service_tokens import CreatedServiceToken, NewServiceToken, ServiceTokenView
from control_plane.models.users import CreatedUser, NewUser, RoleView, TemporaryPassword, UserChange, UserView
from control_plane.permissions import GRANTS, Permission
from control_plane.repositories import user_repo
from control_plane.routes import guarded_router
from control_plane.services import service_tokens, user_service

PREFIX = "/api/v1/admin"
_TAKEN: dict[int | str, dict[str, Any]] = {409: {"description": "There is one of that name"}}
_LAST_ADMIN: dict[int | str, dict[str, Any]] = {409: {"description": "It would leave no admin who can sign in"}}

router = guarded_router(prefix=PREFIX, tags=["admin"])


@router.get("/roles", dependencies=[guard(Permission.USERS_MANAGE, Action.ROLE_LIST)])
async def list_roles(connection: Reading) -> list[RoleView]:
    """The roles, and what each may do."""
    described = await user_repo.role_descriptions(connection)
    return [RoleView(name=role, description=text, permissions=sorted(GRANTS[role])) for role, text in described.items()]


@router.get("/users", dependencies=[guard(Permission.USERS_MANAGE, Action.USER_LIST)])
async def list_users(connection: Reading, cursor: Cursor = None, limit: Limit = 50) -> Page[UserView]:
    """Users by name."""
    return await user_service.page(connection, cursor, limit)


@router.post(
    "/users",
    status_code=201,
    responses=_TAKEN,
    dependencies=[guard(Permission.USERS_MANAGE, Action.USER_CREATE)],
)
async def create_user(body: NewUser, platform: ThePlatform, work: LaterWork, response: Response) -> CreatedUser:
    """Create a user. The password, given or made here, must be changed at the first sign-in."""
    password, hashed = await platform.users.hash_for(body)
    await work.begin()
    work.set_resource(body.name)
    created = await platform.users.create(work.connection, body, password, hashed)
    response.headers["Location"] = f"{PREFIX}/users/{created.id}"
    return created


@router.get("/users/{user_id}", dependencies=[guard(Permission.USERS_MANAGE, Action.USER_READ)])
async def read_user(user_id: UUID, connection: Reading) -> UserView:
    """One user."""
    return await user_service.show(connection, user_id)


@router.patch(
    "/users/{user_id}", responses=_LAST_ADMIN, dependencies=[guard(Permission.USERS_MANAGE, Action.USER_CHANGE)]
)
async def change_user(user_id: UUID, body: UserChange, platform: ThePlatform, work: Work) -> UserView:
    """Change a user's roles, and the pipelines that the user is limited to. It counts from the next call on."""
    user = await platform.users.change(work.connection, user_id, body)
    work.set_resource(user.name)
    return user


@router.post(
    "/users/{user_id}/disable",
    responses=_LAST_ADMIN,
    dependencies=[guard(Permission.USERS_MANAGE, Action.USER_DISABLE)],
)
async def disable_user(user_id: UUID, platform: ThePlatform, work: Work) -> UserView:
    """Refuse a user from now on, and end all of the sessions."""
    user = await platform.users.disable(work.connection, user_id)
    work.set_resource(user.name)
    return user


@router.post("/users/{user_id}/enable", dependencies=[guard(Permission.USERS_MANAGE, Action.USER_ENABLE)])
async def enable_user(user_id: UUID, platform: ThePlatform, work: Work) -> UserView:
    """Let a disabled user sign in again."""
    user = await platform.users.enable(work.connection, user_id)
    work.set_resource(user.name)
    return user


@router.post(
    "/users/{user_id}/reset-password", dependencies=[guard(Permission.USERS_MANAGE, Action.USER_RESET_PASSWORD)]
)
async def reset_password(user_id: UUID, platform: ThePlatform, work: LaterWork) -> TemporaryPassword:
    """Replace a forgotten password with a temporary one, and end all of the user's sessions."""
    password, hashed = await platform.users.temporary_password()
    await work.begin()
    user = await platform.users.reset(work.connection, user_id, hashed)
    work.set_resource(user.name)
    return TemporaryPassword(password=password)


@router.get("/service-tokens", dependencies=[guard(Permission.SERVICE_TOKENS_MANAGE, Action.SERVICE_TOKEN_LIST)])
async def list_service_tokens(connection: Reading, cursor: Cursor = None, limit: Limit = 50) -> Page[ServiceTokenView]:
    """Service tokens, oldest first; revoked and expired ones too. The tokens themselves are not kept."""
    return await service_tokens.page(connection, cursor, limit)


@router.post(
    "/service-tokens",
    status_code=201,
    responses=_TAKEN,
    dependencies=[guard(Permission.SERVICE_TOKENS_MANAGE, Action.SERVICE_TOKEN_CREATE)],
)
async def create_service_token(
    body: NewServiceToken, principal: CurrentPrincipal, platform: ThePlatform, work: Work
) -> CreatedServiceToken:
    """Make a token for a machine. It is shown this once."""
    work.set_resource(body.name)
    return await service_tokens.create(work.connection, body, principal, platform.auth.clock())


@router.post(
    "/service-tokens/{token_id}/revoke",
    dependencies=[guard(Permission.SERVICE_TOKENS_MANAGE, Action.SERVICE_TOKEN_REVOKE)],
)
async def revoke_service_token(token_id: UUID, platform: ThePlatform, work: Work) -> ServiceTokenView:
    """Refuse a service token from now on. Revoking it twice is harmless."""
    revoked = await service_tokens.revoke(work.connection, token_id, platform.auth.clock())
    work.set_resource(revoked.name)
    return revoked
