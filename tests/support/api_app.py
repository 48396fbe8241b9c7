"""The control plane in the test's own process: no port and no server, all else real, on a database of its own.

    @pytest.mark.anyio
    async def test_…(api: Api) -> None:
        operator = await api.signed_in(Role.OPERATOR)
        answer = await operator.get("/api/v1/pipelines")

Real services start with the application: its other parts are those of the running stack.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import httpx
from api_database import TrialDatabase
from fastapi import FastAPI
from mongo_pipeline import CONNECTOR_TEMPLATE
from pydantic import SecretStr
from stack_endpoints import DATA_KEY_ENVIRONMENT, Stack

from cdc_shared.security import crypto
from cdc_shared.security.data_key import DataKeySettings
from cdc_shared.settings import (
    ConnectSettings,
    KafkaSettings,
    LoggingSettings,
    SecretsSettings,
    TracingSettings,
)
from control_plane.assembly import open_platform
from control_plane.main import create_app
from control_plane.permissions import Permission, Role
from control_plane.platform import Platform
from control_plane.services.passwords import Passwords
from control_plane.settings import ApiSettings, QuerySettings, Settings

BASE_URL: Final = "http://api.test"
ADDRESS: Final = "192.0.2.1"
ADMIN: Final = "admin"
PASSWORD: Final = "a-long-Test-passphrase-7"
"""Of the first admin, and of every user that `Api.user` makes."""
TIMEOUT_S: Final = 30.0
UNLIMITED: Final = "1000000/second"
CHEAP_HASH_KIB: Final = 8


@dataclass
class Api:
    """The running application; `anybody` is not signed in, `signed_in` makes users of any role."""

    app: FastAPI
    settings: Settings
    database: TrialDatabase
    _clients: AsyncExitStack = field(repr=False)

    @property
    def platform(self) -> Platform:
        return cast(Platform, self.app.state.platform)

    async def new_client(self, token: str | None = None, address: str = ADDRESS) -> httpx.AsyncClient:
        """A client that sends this token, from this address. It is closed with the application."""
        transport = httpx.ASGITransport(self.app, client=(address, 40000))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers, timeout=TIMEOUT_S)
        return await self._clients.enter_async_context(client)

    async def anybody(self) -> httpx.AsyncClient:
        """A client without a token."""
        return await self.new_client()

    async def user(
        self, *roles: Role, name: str | None = None, pipelines: Iterable[str] | None = None, **columns: Any
    ) -> str:
        """Make a user with `PASSWORD`, past the API; the name. `columns`: others of the table `users`."""
        name = name or f"{'-'.join(sorted(roles)) or 'nobody'}-{uuid.uuid4().hex[:8]}"
        values = {
            "name": name,
            "password_hash": await self.platform.auth.passwords.hash(PASSWORD),
            "pipelines": None if pipelines is None else sorted(pipelines),
            "created_at": self.platform.auth.clock(),
            "password_changed_at": self.platform.auth.clock(),
            **columns,
        }
        marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        user = await self.database.fetch_value(
            f"INSERT INTO users ({', '.join(values)}) VALUES ({marks}) RETURNING id", *values.values()
        )
        for role in roles:
            await self.database.fetch("INSERT INTO user_roles VALUES ($1, $2)", user, role.value)
        return name

    async def sign_in(self, name: str = ADMIN, password: str = PASSWORD, address: str = ADDRESS) -> dict[str, Any]:
        """The tokens that `POST /api/v1/auth/token` gives."""
        client = await self.new_client(address=address)
        answer = await client.post("/api/v1/auth/token", data={"username": name, "password": password})
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def signed_in(
        self, *roles: Role, name: str | None = None, pipelines: Iterable[str] | None = None
    ) -> httpx.AsyncClient:
        """A client of a new user with these roles, limited to these pipelines."""
        tokens = await self.sign_in(await self.user(*roles, name=name, pipelines=pipelines))
        return await self.new_client(tokens["access_token"])

    async def admin(self) -> httpx.AsyncClient:
        """A client of the first admin."""
        return await self.new_client((await self.sign_in())["access_token"])

    async def machine(self, *permissions: Permission, pipelines: Iterable[str] | None = None) -> httpx.AsyncClient:
        """A client with a service token of these permissions."""
        body = {
            "name": f"machine-{uuid.uuid4().hex[:8]}",
            "permissions": sorted(permissions),
            "pipelines": None if pipelines is None else sorted(pipelines),
        }
        answer = await (await self.admin()).post("/api/v1/admin/service-tokens", json=body)
        assert answer.status_code == 201, answer.text
        return await self.new_client(answer.json()["token"])


def settings_for(stack: Stack, database: TrialDatabase, directory: Path, **api: Any) -> Settings:
    """The application's settings for a test. `api`: fields of `ApiSettings` to be otherwise."""
    options: dict[str, Any] = {
        "postgres_dsn": SecretStr(database.dsn),
        "postgres_connections": 8,
        "admin_user": ADMIN,
        "admin_password": SecretStr(PASSWORD),
        "rate_limit": UNLIMITED,
        "auth_rate_limit": UNLIMITED,
        "controller": False,
        "connect_secrets_dir": stack.connect_secrets_dir,
        "connector_template": CONNECTOR_TEMPLATE,
    }
    return Settings(
        api=ApiSettings(**(options | api)),
        kafka=KafkaSettings(bootstrap_servers=stack.kafka),
        connect=ConnectSettings(url=stack.connect_url),
        stores=stack.object_store,
        secrets=SecretsSettings(
            file=directory / "secrets.enc", key=SecretStr(crypto.encode_key(crypto.generate_key())), key_file=None
        ),
        data_key=DataKeySettings(reference=DATA_KEY_ENVIRONMENT["CDC_DATA_KEY"]),
        logging=LoggingSettings(),
        tracing=TracingSettings(otlp_endpoint=None),
        queries=QuerySettings(),
    )


@asynccontextmanager
async def open_api(
    settings: Settings, database: TrialDatabase, passwords: Passwords | None = None
) -> AsyncIterator[Api]:
    """The application, started; stopped at the end. Several may share a database.

    Passwords are hashed cheaply, though compared as ever; whoever measures that brings the product's `Passwords()`.
    """
    hashing = passwords or Passwords(memory_kib=CHEAP_HASH_KIB, passes=1)
    app = create_app(settings, lambda: open_platform(settings, hashing))
    async with AsyncExitStack() as clients, app.router.lifespan_context(app):
        yield Api(app, settings, database, clients)
