"""References to secrets, as they stand in specs and settings: `secret:<name>` (a provider) or `env:<VARIABLE>`.

A spec travels through topics, logs and screens; a reference in it says which secret is meant and shows nothing of it.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cdc_shared.errors import Fatal
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import EncryptedFileProvider, read_key_file
from cdc_shared.security.secret_provider import Secret, SecretNotFound, SecretProvider
from cdc_shared.settings import SecretsSettings

REFERENCE_PATTERN = r"^(secret|env):[A-Za-z0-9_][A-Za-z0-9_./-]*$"

_REFERENCE = re.compile(REFERENCE_PATTERN.removesuffix("$") + r"\Z")


class InvalidReference(Fatal):
    """Text that is no reference. The message does not repeat it: it may be the secret itself."""


class EnvironmentProvider:
    """Secrets that are environment variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str) -> Secret:
        """Raises `SecretNotFound` when the variable is unset or empty."""
        value = self._environ.get(name)
        if not value:
            raise SecretNotFound(f"environment variable {name} is not set: set it, or correct the reference env:{name}")
        return Secret(value)


class SecretsFileProvider:
    """Secrets of the encrypted file, which is made with the first secret that is put there."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._file = EncryptedFileProvider(path, key)

    def get(self, name: str) -> Secret:
        """As `EncryptedFileProvider.get`; when there is no file yet, its `SecretNotFound` says so."""
        if not self._path.exists():
            raise SecretNotFound(
                f"no secret {name!r}: the secrets file {self._path} does not exist yet, it is made with the first "
                "secret; use an env: reference meanwhile"
            )
        return self._file.get(name)

    def add(self, name: str, value: str) -> Secret:
        """As `EncryptedFileProvider.add`."""
        return self._file.add(name, value)


def secret_providers(settings: SecretsSettings, environ: Mapping[str, str] = os.environ) -> dict[str, SecretProvider]:
    """The providers by scheme: always `env`, and `secret` when a secrets file is configured.

    Raises `Fatal` when a file is given without a key, with two keys, or with a key file that others can read.
    """
    providers: dict[str, SecretProvider] = {"env": EnvironmentProvider(environ)}
    if settings.file is not None:
        providers["secret"] = SecretsFileProvider(settings.file, _file_key(settings))
    return providers


def resolve_reference(reference: str, providers: Mapping[str, SecretProvider]) -> Secret:
    """The secret that `reference` names.

    Raises `InvalidReference`, `SecretNotFound`, or `Fatal` when no provider serves its scheme.
    """
    if not _REFERENCE.match(reference):
        raise InvalidReference(
            "no reference to a secret: write secret:<name> or env:<VARIABLE>, never the secret itself"
        )
    scheme, _, name = reference.partition(":")
    provider = providers.get(scheme)
    if provider is None:
        raise Fatal(
            f"{reference} cannot be resolved: no secret provider is configured; "
            "set CDC_SECRETS_FILE and CDC_SECRETS_KEY_FILE, or use an env: reference"
        )
    return provider.get(name)


def _file_key(settings: SecretsSettings) -> bytes:
    if settings.key is not None and settings.key_file is not None:
        raise Fatal("CDC_SECRETS_KEY and CDC_SECRETS_KEY_FILE are both set: unset one")
    if settings.key is not None:
        return crypto.decode_key(settings.key.get_secret_value(), "CDC_SECRETS_KEY")
    if settings.key_file is not None:
        return read_key_file(settings.key_file)
    raise Fatal("CDC_SECRETS_FILE is set without its key: set CDC_SECRETS_KEY_FILE or CDC_SECRETS_KEY")
