"""Users, as admins manage them. One admin who can sign in always stays.

Every change works in the caller's transaction. Rights count from the next request on: no token carries any.
"""

from collections.abc import Iterable
from uuid import UUID

from control_plane.database import Connection
from control_plane.models.pages import Page, decode_cursor, encode_cursor
from control_plane.models.users import CreatedUser, NewUser, UserChange, UserView
from control_plane.permissions import GLOBAL, Role, granted
from control_plane.problems import Problem
from control_plane.repositories import session_repo, user_repo
from control_plane.repositories.session_repo import EndedBy
from control_plane.repositories.user_repo import User
from control_plane.services.auth_service import Clock
from control_plane.services.passwords import Passwords, generate_password, require_good


class UserService:
    def __init__(self, passwords: Passwords, clock: Clock) -> None:
        self._passwords = passwords
        self._clock = clock

    async def hash_for(self, wanted: NewUser) -> tuple[str, str]:
        """The password of a new user, and what is kept of it. Raises `Problem` 422 for one that is not good enough."""
        if wanted.password is not None:
            require_good(wanted.password, wanted.name)
        password = wanted.password or generate_password()
        return password, await self._passwords.hash(password)

    async def create(self, connection: Connection, wanted: NewUser, password: str, hashed: str) -> CreatedUser:
        """A new user. Raises `Problem` 409 when the name is taken, 422 for a scope that the roles cannot have."""
        _require_scope_fits(wanted.roles, wanted.pipelines)
        made_here = wanted.password is None
        user = await user_repo.add(
            connection,
            wanted.name,
            hashed,
            wanted.roles,
            now=self._clock(),
            pipelines=wanted.pipelines,
            must_change_password=True,
        )
        if user is None:
            raise Problem(409, "name_taken", "there is a user of this name, perhaps in other letters; choose another")
        view = user_view(await _existing(connection, user))
        return CreatedUser(**view.model_dump(), password=password if made_here else None)

    async def change(self, connection: Connection, user_id: UUID, wanted: UserChange) -> UserView:
        """Change what the body names. Raises `Problem` 404, 409 `last_admin`, 422."""
        await user_repo.lock_admins(connection)
        user = await _existing(connection, user_id, lock=True)
        roles = wanted.roles or user.roles
        pipelines = wanted.pipelines if "pipelines" in wanted.model_fields_set else user.pipelines
        _require_scope_fits(roles, pipelines)
        await user_repo.set_roles(connection, user_id, roles)
        await user_repo.set_pipelines(connection, user_id, pipelines)
        await _require_an_admin(connection)
        return user_view(await _existing(connection, user_id))

    async def disable(self, connection: Connection, user_id: UUID) -> UserView:
        """Refuse this user from now on, and end the sessions. Raises `Problem` 404, 409 `last_admin`."""
        await user_repo.lock_admins(connection)
        await _existing(connection, user_id, lock=True)
        await user_repo.set_disabled(connection, user_id, disabled=True)
        await _require_an_admin(connection)
        await session_repo.end_all(connection, user_id, EndedBy.DISABLED, self._clock())
        return user_view(await _existing(connection, user_id))

    async def enable(self, connection: Connection, user_id: UUID) -> UserView:
        """Let a disabled user sign in again. Raises `Problem` 404."""
        await _existing(connection, user_id, lock=True)
        await user_repo.set_disabled(connection, user_id, disabled=False)
        return user_view(await _existing(connection, user_id))

    async def temporary_password(self) -> tuple[str, str]:
        """A password to hand over, and what is kept of it."""
        password = generate_password()
        return password, await self._passwords.hash(password)

    async def reset(self, connection: Connection, user_id: UUID, hashed: str) -> UserView:
        """Replace a forgotten password; all sessions end. Raises `Problem` 404."""
        now = self._clock()
        await _existing(connection, user_id, lock=True)
        await user_repo.set_password(connection, user_id, hashed, now=now, must_change=True)
        await session_repo.end_all(connection, user_id, EndedBy.PASSWORD_RESET, now)
        return user_view(await _existing(connection, user_id))


async def show(connection: Connection, user_id: UUID) -> UserView:
    """One user. Raises `Problem` 404."""
    return user_view(await _existing(connection, user_id))


async def page(connection: Connection, cursor: str | None, limit: int) -> Page[UserView]:
    """Users by name."""
    position = decode_cursor(cursor, str)
    found = await user_repo.page(connection, str(position[0]) if position else None, limit + 1)
    shown = found[:limit]
    more = encode_cursor([shown[-1].name.lower()]) if len(found) > limit else None
    return Page(items=[user_view(each) for each in shown], next=more)


def user_view(user: User) -> UserView:
    """What admins see of a user."""
    return UserView(
        id=user.id,
        name=user.name,
        roles=sorted(user.roles),
        permissions=sorted(granted(user.roles)),
        pipelines=None if user.pipelines is None else sorted(user.pipelines),
        disabled=user.disabled,
        must_change_password=user.must_change_password,
        created_at=user.created_at,
        password_changed_at=user.password_changed_at,
        last_login_at=user.last_login_at,
    )


def _require_scope_fits(roles: Iterable[Role], pipelines: Iterable[str] | None) -> None:
    if pipelines is not None and (everything := granted(roles) & GLOBAL):
        raise Problem(
            422,
            "scope_not_possible",
            f"a user who may {', '.join(sorted(everything))} cannot be limited to pipelines: take one of both away",
        )


async def _existing(connection: Connection, user_id: UUID, *, lock: bool = False) -> User:
    user = await user_repo.by_id(connection, user_id, lock=lock)
    if user is None:
        raise Problem(404, "not_found", "there is no user of this id")
    return user


async def _require_an_admin(connection: Connection) -> None:
    if await user_repo.count_admins(connection) == 0:
        raise Problem(409, "last_admin", "this is the last admin who can sign in: make another one first")
