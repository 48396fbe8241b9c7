"""Secrets in one file, encrypted with AES-256-GCM: the provider where no Vault runs.

File: `MAGIC`, one byte of format version, then `crypto.encrypt` of JSON {name: {"value": str, "version": int}}. Magic
and version are the associated data, so neither can be changed unnoticed. Each write encrypts everything under a new
nonce into a new file of mode 0600 and renames it over the old one: a reader sees the old file or the new, never a part.
"""

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from cdc_shared.errors import Fatal
from cdc_shared.security import crypto
from cdc_shared.security.secret_provider import Secret, SecretNotFound

MAGIC = b"CDCSECRETS"
FORMAT_VERSION = 1
HEADER = MAGIC + bytes([FORMAT_VERSION])
PRIVATE_MODE = 0o600


class _Entry(TypedDict):
    value: str
    version: int


class EncryptedFileProvider:
    """Reads the file on every `get`, so that a rotated secret is seen without a restart.

    Several processes may read and write one file: writers take turns on a lock file beside it.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        """A missing file counts as empty; the first `put` makes it."""
        self._path = path
        self._key = key

    def get(self, name: str) -> Secret:
        """Raises `SecretNotFound`, `DecryptionFailed` for the wrong key, `Fatal` for a file that is not ours."""
        entry = self._read().get(name)
        if entry is None:
            raise SecretNotFound(f"no secret {name!r} in {self._path}: put it there, or correct the reference")
        return Secret(entry["value"], entry["version"])

    def put(self, name: str, value: str) -> Secret:
        """Store or replace a secret; an equal value changes nothing. Its new state."""
        with self._writing():
            entries = self._read()
            known = entries.get(name)
            if known is None or known["value"] != value:
                known = entries[name] = _Entry(value=value, version=known["version"] + 1 if known else 1)
                self._write(entries)
        return Secret(value, known["version"])

    def add(self, name: str, value: str) -> Secret:
        """Store a secret unless there is one of that name; the one that is there now. Of two who do so, one wins."""
        with self._writing():
            entries = self._read()
            known = entries.get(name)
            if known is None:
                known = entries[name] = _Entry(value=value, version=1)
                self._write(entries)
        return Secret(known["value"], known["version"])

    def delete(self, name: str) -> bool:
        """Remove a secret; False when there was none."""
        with self._writing():
            entries = self._read()
            if entries.pop(name, None) is None:
                return False
            self._write(entries)
        return True

    def list(self) -> dict[str, int]:
        """Name to version of every secret, sorted by name; no values."""
        return {name: entry["version"] for name, entry in sorted(self._read().items())}

    def _read(self) -> dict[str, _Entry]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Fatal(f"secrets file {self._path} cannot be read: {error.strerror}") from error
        if not content.startswith(MAGIC):
            raise Fatal(f"{self._path} is not a secrets file; correct CDC_SECRETS_FILE")
        header, message = content[: len(HEADER)], content[len(HEADER) :]
        if header != HEADER:
            raise Fatal(f"{self._path} has a format this version does not know; read it with the version that wrote it")
        try:
            entries: dict[str, _Entry] = json.loads(crypto.decrypt(self._key, message, header))
        except crypto.DecryptionFailed as error:
            raise crypto.DecryptionFailed(
                f"{self._path} does not open: {error}; use the key it was written with, or restore it from a backup"
            ) from None
        return entries

    def _write(self, entries: Mapping[str, _Entry]) -> None:
        message = crypto.encrypt(self._key, json.dumps(entries).encode(), HEADER)
        partial = self._path.with_name(self._path.name + ".partial")  # one at a time: the lock is held
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(HEADER + message)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        _sync_directory(self._path.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self._path.with_name(self._path.name + ".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)  # releases the lock


def read_key_file(path: Path) -> bytes:
    """The key in a file (base64). Raises `Fatal` when others than its owner have access, or when it holds no key."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())  # of the file that is open, not of a name that may change meanwhile
            content = file.read(1024)
    except OSError as error:
        raise Fatal(f"key file {path} cannot be read: {error.strerror}; correct CDC_SECRETS_KEY_FILE") from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise Fatal(f"key file {path} has mode {mode:04o}: others can read it; run chmod 600 {path}")
    return crypto.decode_key(content.decode("ascii", "replace"), f"key file {path}")


def create_key_file(path: Path) -> bytes:
    """Make a key file of mode 0600 with a new key, or read the one that is there; its key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    except FileExistsError:
        return read_key_file(path)
    key = crypto.generate_key()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(crypto.encode_key(key) + "\n")
    return key


def _sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
