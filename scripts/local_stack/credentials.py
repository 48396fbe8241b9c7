"""Credentials of the local parts: made at random on the first start, kept in one 0600 file, never shipped, never
printed.
"""

import base64
import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from cdc_shared.errors import CdcError
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import EncryptedFileProvider, read_key_file
from cdc_shared.security.secret_provider import SecretNotFound
from local_stack.errors import StackError
from local_stack.private_files import write_private

SECRETS_FILE = "secrets.enc"
DATA_KEY = "cdc-data-key"
"""The secret of that file which dead letters are encrypted with."""


@dataclass(frozen=True)
class Credentials:
    s3_access_key_id: str
    s3_secret_access_key: str = field(repr=False)
    s3_encryption_key: str = field(repr=False)
    """Key-encryption key of the object store, 32 bytes in hex. Without it the stored objects cannot be read."""
    postgres_password: str = field(repr=False)
    kafka_cluster_id: str
    api_admin_password: str = field(repr=False)
    """Of the control plane's first admin, as long as nobody has changed it."""

    @classmethod
    def generate(cls) -> "Credentials":
        return cls(
            s3_access_key_id="cdc" + secrets.token_hex(8),
            s3_secret_access_key=secrets.token_urlsafe(30),
            s3_encryption_key=secrets.token_hex(32),
            postgres_password=secrets.token_hex(20),
            kafka_cluster_id=_cluster_id(),
            api_admin_password=_admin_password(),
        )


def load_or_generate(directory: Path, *, has_data: bool) -> Credentials:
    """The stack's credentials, and the key file of the encrypted secrets beside them.

    `has_data`: the stack has been started before. Then missing credentials are an error: new ones would lock the data
    out.
    """
    path = directory / "credentials.json"
    if path.exists():
        return _read(path)
    if has_data:
        raise StackError(
            f"{path} is gone but the data it unlocks is still there: put it back, or start anew with `make clean up`"
        )
    credentials = Credentials.generate()
    _write(path, credentials)
    return credentials


def ensure_secrets_key(directory: Path) -> Path:
    """Path of the key of the encrypted secrets file: 32 random bytes in base64, made once."""
    path = directory / "secrets.key"
    if not path.exists():
        write_private(path, base64.b64encode(secrets.token_bytes(32)).decode("ascii") + "\n")
    return path


def ensure_data_key(directory: Path) -> None:
    """Put the key that dead letters are encrypted with into the secrets file, once. Raises `StackError`."""
    path = directory / SECRETS_FILE
    try:
        secrets_file = EncryptedFileProvider(path, read_key_file(ensure_secrets_key(directory)))
        try:
            secrets_file.get(DATA_KEY)
        except SecretNotFound:
            secrets_file.put(DATA_KEY, crypto.encode_key(crypto.generate_key()))
    except CdcError as error:
        raise StackError(f"{path} cannot be used: {error}") from None


def _read(path: Path) -> Credentials:
    """The credentials of the file. Those made before there was a control plane get its admin's password added."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        content = {"api_admin_password": _admin_password(), **stored}
        credentials = Credentials(**{item.name: str(content[item.name]) for item in fields(Credentials)})
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{path} cannot be read ({type(error).__name__}): put it back, or start anew with `make clean up`"
        ) from None
    if stored.keys() != content.keys():
        _write(path, credentials)
    return credentials


def _write(path: Path, credentials: Credentials) -> None:
    write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")


def _admin_password() -> str:
    return secrets.token_urlsafe(18)


def _cluster_id() -> str:
    """A Kafka cluster id: 16 random bytes in URL-safe base64. Kafka's tools take a leading dash for an option."""
    while True:
        candidate = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode("ascii").rstrip("=")
        if not candidate.startswith("-"):
            return candidate
