"""The first admin: made at the first start, when there is no user at all."""

import os
from datetime import datetime
from pathlib import Path
from typing import Final

from cdc_shared.errors import Fatal
from cdc_shared.logging.structured_logger import get_logger
from control_plane.database import Connection, Database
from control_plane.models.users import USER_NAME
from control_plane.permissions import Role
from control_plane.repositories import session_repo, user_repo
from control_plane.repositories.session_repo import EndedBy
from control_plane.services.passwords import Passwords, generate_password, weakness
from control_plane.settings import ApiSettings

PRIVATE_MODE: Final = 0o600

log = get_logger(__name__)


async def ensure_first_admin(database: Database, settings: ApiSettings, passwords: Passwords, now: datetime) -> None:
    """Make the admin of the settings unless there is a user. Several starters make one.

    Raises `Fatal` when the settings' password is not good enough, or a generated one has no file to be written to.
    """
    async with database.connection() as connection:
        if await user_repo.any_user(connection):
            return
    password = _given_password(settings) or generate_password()
    hashed = await passwords.hash(password)
    async with database.transaction() as connection:
        await user_repo.lock_admins(connection)
        if await user_repo.any_user(connection):
            return
        if settings.admin_password is None:
            _write(settings.admin_password_file, password)
        await user_repo.add(connection, settings.admin_user, hashed, [Role.ADMIN], now=now)
    log.info(
        "the first admin was made",
        user=settings.admin_user,
        password_file=str(settings.admin_password_file) if settings.admin_password is None else None,
    )


async def put_admin(connection: Connection, name: str, hashed: str, now: datetime) -> bool:
    """Make an enabled admin of this name with this password, of a user that is there already too; whether it is new.

    For who has lost the last admin's password, and the server's own. In a transaction.
    """
    await user_repo.lock_admins(connection)
    user = await user_repo.by_name(connection, name)
    if user is None:
        await user_repo.add(connection, name, hashed, [Role.ADMIN], now=now)
        return True
    await user_repo.set_roles(connection, user.id, {*user.roles, Role.ADMIN})
    await user_repo.set_pipelines(connection, user.id, None)
    await user_repo.set_disabled(connection, user.id, disabled=False)
    await user_repo.set_password(connection, user.id, hashed, now=now, must_change=False)
    await session_repo.end_all(connection, user.id, EndedBy.PASSWORD_RESET, now)
    return False


def _given_password(settings: ApiSettings) -> str | None:
    if not USER_NAME.fullmatch(settings.admin_user):
        raise Fatal("API_ADMIN_USER is no user name: letters, digits, and . _ @ - inside of it")
    if settings.admin_password is None:
        if settings.admin_password_file is None:
            raise Fatal(
                "there is no admin yet, and nowhere to write the password of a new one: set API_ADMIN_PASSWORD_FILE "
                "(a file that is made with mode 0600) or API_ADMIN_PASSWORD"
            )
        return None
    password = settings.admin_password.get_secret_value()
    if reason := weakness(password, settings.admin_user):
        raise Fatal(f"API_ADMIN_PASSWORD is not good enough: {reason}")
    return password


def _write(path: Path | None, password: str) -> None:
    if path is None:
        raise Fatal("API_ADMIN_PASSWORD_FILE is not set")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise Fatal(f"the admin's password cannot be written to {path}: {error.strerror}") from error
