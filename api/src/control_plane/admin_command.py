"""Making an admin from the command line: for who has lost the last one's password and has the database's."""

import getpass
import time
import uuid
from datetime import UTC, datetime
from typing import Final

from cdc_shared.errors import Fatal
from control_plane.database import Database
from control_plane.migrations import migrate
from control_plane.models.audit import Action, AuditDraft
from control_plane.models.users import USER_NAME
from control_plane.repositories import audit_repo
from control_plane.services.first_admin import put_admin
from control_plane.services.passwords import Passwords, weakness

CONNECTIONS: Final = 4
CREATED: Final = 201
CHANGED: Final = 200


async def make_admin(dsn: str, name: str, password: str) -> bool:
    """Make an enabled admin of this name with this password, of an existing user as well; whether it is a new one.

    It is in the audit trail like a call of the API, by the user of the operating system. Raises `Fatal` for a password
    that is not good enough, `Transient` when Postgres does not answer.
    """
    if not USER_NAME.fullmatch(name):
        raise Fatal("that is no user name: letters, digits, and . _ @ - inside of it")
    if reason := weakness(password, name):
        raise Fatal(f"choose another password: {reason}")
    await migrate(dsn)
    started_s, now = time.monotonic(), datetime.now(UTC)
    hashed = await Passwords().hash(password)
    database = await Database.open(dsn, CONNECTIONS)
    try:
        async with database.transaction() as connection:
            is_new = await put_admin(connection, name, hashed, now)
            action = Action.USER_CREATE if is_new else Action.USER_RESET_PASSWORD
            draft = AuditDraft(
                now, str(uuid.uuid4()), None, started_s, action, name, user=f"{getpass.getuser()} (shell)"
            )
            await audit_repo.append(connection, [draft.entry(CREATED if is_new else CHANGED, time.monotonic())])
    finally:
        await database.close()
    return is_new
