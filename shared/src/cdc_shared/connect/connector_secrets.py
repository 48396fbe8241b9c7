"""Secrets of connectors, in files that Kafka Connect's workers read: the connectors' configurations only name them.

Each pipeline has one Java properties file, `<directory>/<pipeline>.<id>.properties`, mode 0600. Kafka's own
`FileConfigProvider` puts its values where a configuration says `${file:<path>:<key>}`, when a connector or task starts;
what Connect stores, answers and replicates keeps the placeholder. docs/adr/0021-connector-secrets.md says why files,
and why a changed secret gets a new file: the configuration changes with it, so that Connect itself restarts the
connector, and a crash between two steps leaves nothing that the next attempt would not put right.
"""

import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from cdc_shared.errors import Fatal
from cdc_shared.logging.redaction import MASK, is_secret_key, redact_text
from cdc_shared.security.secret_provider import Secret

PROVIDER: Final = "file"
"""What the workers' `config.providers` calls the provider (config/local/connect.properties)."""

CONNECTION_STRING: Final = "mongodb.connection.string"
PASSWORD: Final = "mongodb.password"

PRIVATE_MODE: Final = 0o600
LENT_PREFIX: Final = "lent_"
"""Begins the names of files that belong to no pipeline; no pipeline's name holds a `_`."""
LENT_FOR_S: Final = 600.0

_NOT_IN_A_PLACEHOLDER: Final = re.compile(r"[:{},\r\n]")
_PLAIN: Final = re.compile(r"[^A-Za-z0-9]")
_ESCAPED: Final = re.compile(r"\\u([0-9a-f]{4})")


class ConnectorSecrets:
    """The secrets of all connectors, kept under one directory that the workers see under the same path.

    Several processes may use it. Raises `Fatal` with the remedy where the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        """The directory is made with the first secret."""
        if not directory.is_absolute() or _NOT_IN_A_PLACEHOLDER.search(str(directory)):
            raise Fatal(
                f"CONNECT_SECRETS_DIR cannot be {directory}: give an absolute path without colon, comma and braces"
            )
        self._directory = directory

    def put(self, pipeline: str, connection: Secret) -> dict[str, str]:
        """Keep what the connection string holds; the connector's settings, with placeholders for all values.

        The settings stay the same as long as the secret does, and name another file once it changes. Raises `Fatal`
        also for a connection string that is none.
        """
        values = connection_settings(connection)
        text = _encoded(values)
        path = next((path for path in self._files(pipeline) if _read(path) == text), None)
        if path is None:
            path = self._directory / f"{pipeline}.{uuid.uuid4().hex[:12]}.properties"
            self._write(path, text)
        return {name: f"${{{PROVIDER}:{path}:{name}}}" for name in values}

    def keep_only(self, pipeline: str, config: Mapping[str, str]) -> None:
        """Remove the files that `config` does not name. Call it once tasks run with that configuration, not before."""
        for path in self._files(pipeline):
            if not any(str(path) in value for value in config.values()):
                path.unlink(missing_ok=True)

    def remove(self, pipeline: str) -> None:
        """Remove what is kept for the pipeline. Its connector cannot start after this."""
        for path in self._directory.glob(f"{pipeline}.*"):
            path.unlink(missing_ok=True)

    @contextmanager
    def lent(self, connection: Secret) -> Iterator[dict[str, str]]:
        """As `put`, for a configuration that is only looked at: the file is there within the block."""
        for path in self._directory.glob(f"{LENT_PREFIX}*.properties"):  # of a process that was killed meanwhile
            if time.time() - _changed_s(path) > LENT_FOR_S:
                path.unlink(missing_ok=True)
        name = f"{LENT_PREFIX}{uuid.uuid4().hex[:12]}"
        try:
            yield self.put(name, connection)
        finally:
            self.remove(name)

    def hide(self, pipeline: str, text: str) -> str:
        """`text` without the pipeline's secrets, and without whatever else looks like one."""
        for path in self._files(pipeline):
            text = hide_values(_decoded(_read(path)), text)
        return redact_text(text)

    def _files(self, pipeline: str) -> list[Path]:
        return sorted(self._directory.glob(f"{pipeline}.*.properties"))

    def _write(self, path: Path, text: str) -> None:
        partial = path.with_suffix(".new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise Fatal(
                f"the connectors' secrets cannot be written to {self._directory}: {error.strerror}; correct "
                "CONNECT_SECRETS_DIR, or the directory's owner and mode"
            ) from None


def connection_settings(connection: Secret) -> dict[str, str]:
    """The connector's settings that carry a connection string: apart from it user, password and where they are checked.

    Debezium declares the password as one, so that it is masked wherever it prints its settings. With an authentication
    mechanism other than SCRAM, which these settings cannot express, the string stays whole. Raises `Fatal` for what is
    no connection string.
    """
    text = connection.reveal()
    if not text.startswith(("mongodb://", "mongodb+srv://")):
        raise Fatal("the source's connection string must begin with mongodb:// or mongodb+srv://")
    parts = urlsplit(text)
    user_info, _, hosts = parts.netloc.rpartition("@")
    options = parse_qsl(parts.query, keep_blank_values=True)
    lowered = {name.lower(): value for name, value in options}
    if not hosts:
        raise Fatal("the source's connection string names no host")
    if not user_info or not lowered.get("authmechanism", "SCRAM").startswith("SCRAM"):
        return {CONNECTION_STRING: text}
    user, _, password = user_info.partition(":")
    kept = [(name, value) for name, value in options if name.lower() not in ("authsource", "authmechanism")]
    return {
        CONNECTION_STRING: urlunsplit((parts.scheme, hosts, parts.path or "/", urlencode(kept), "")),
        "mongodb.user": unquote(user),
        PASSWORD: unquote(password),
        "mongodb.authsource": lowered.get("authsource") or unquote(parts.path.strip("/")) or "admin",
    }


def hide_values(settings: Mapping[str, str], text: str) -> str:
    """`text` without the password among `settings`, and without a connection string that holds secrets itself."""
    for secret in _secrets_in(settings):
        for spelling in (secret, quote(secret, safe="")):
            text = text.replace(spelling, MASK)
    return text


def _secrets_in(settings: Mapping[str, str]) -> Iterator[str]:
    """Every secret among connector settings, the longest first; no empty one."""
    found = [settings.get(PASSWORD, "")]
    connection = settings.get(CONNECTION_STRING, "")
    parts = urlsplit(connection)
    options = [value for name, value in parse_qsl(parts.query) if is_secret_key(name)]
    _, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if options or "@" in parts.netloc:
        found += [connection, *options, unquote(password)]
    yield from sorted({secret for secret in found if secret}, key=len, reverse=True)


def _encoded(values: Mapping[str, str]) -> str:
    """Java's properties format, plain ASCII: every character of a value that could mean anything there is escaped."""
    return "".join(f"{name}={_PLAIN.sub(_escape, value)}\n" for name, value in values.items())


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _decoded(text: str) -> dict[str, str]:
    """The inverse of `_encoded`."""
    lines = (line.partition("=") for line in text.splitlines())
    return {
        name: _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)
        .encode("utf-16-be", "surrogatepass")
        .decode("utf-16-be", "replace")
        for name, _, value in lines
    }


def _read(path: Path) -> str:
    """The file's text; empty when it was removed meanwhile."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Fatal(f"{path} cannot be read: {error.strerror}; correct the file's owner and mode") from None


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
