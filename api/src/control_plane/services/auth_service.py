"""Signing in (SECURITY fills this in)."""

from control_plane.database import Database
from control_plane.models.auth import Principal
from control_plane.settings import Settings


class AuthService:
    @classmethod
    async def open(cls, settings: Settings, database: Database) -> "AuthService":
        return cls()

    async def authenticate(self, token: str) -> Principal:
        raise NotImplementedError
