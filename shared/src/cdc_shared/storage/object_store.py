"""The data path's object store: `obstore` over S3, Google, Azure or a local directory, and what its errors mean.

Administration (buckets, encryption, capacity) is in `object_store_admin`; docs/adr/0002-two-s3-clients.md says why
there are two libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.redaction import redact_text
from cdc_shared.settings import ObjectStoreSettings

if TYPE_CHECKING:  # these exist for type checkers only
    from obstore.store import ClientConfig, RetryConfig, S3Config

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 60
MAX_REQUEST_RETRIES = 3
# For `obstore.put(…, chunk_size=, max_concurrency=)`. On SeaweedFS (2 cores) 8 MiB by 4 gave 140-150 MiB/s at 32 and
# 128 MiB, obstore's own 5 MiB by 12 gave 95-116; larger parts cost memory and gained nothing. At most 32 MiB in flight
# a file.
MULTIPART_CHUNK_BYTES = 8 * 1024 * 1024
MULTIPART_CONCURRENCY = 4
# Short: an outage is the caller's to wait out (`cdc_shared.retry`), where it can be seen, counted and interrupted.
REQUEST_RETRY_LIMIT_S = 15

_NEEDS_ESCAPE = re.compile(r"[^A-Za-z0-9_.-]|^\.|_(?=x[0-9a-f]+_)")
_ESCAPE = re.compile(r"_x([0-9a-f]+)_")


def open_store(url: str, settings: ObjectStoreSettings) -> ObjectStore:
    """The store rooted at `url`: `s3://bucket/prefix`, `gs://…`, `az://container/prefix`, `file:///path`, a local path.

    A local directory is made when it is missing; a bucket is not. Makes no request, so that a wrong key shows on first
    use. Raises `Fatal` for a URL that names no store.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return _local_store(local_path(url))
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/") or None
    if not bucket or "@" in bucket:
        raise Fatal(f"{redact_text(url)} names no bucket; write {parts.scheme}://bucket/prefix, without credentials")
    try:
        return _remote_store(parts.scheme, bucket, prefix, settings)
    except (obstore_errors.BaseError, ValueError) as error:
        raise Fatal(f"{url} cannot be opened: {_brief(error)}; set the store's environment variables") from error


def _remote_store(scheme: str, bucket: str, prefix: str | None, settings: ObjectStoreSettings) -> ObjectStore:
    match scheme:
        case "s3":
            return S3Store(
                bucket,
                prefix=prefix,
                config=_s3_config(settings),
                client_options=_client_config(allow_http=settings.allow_http),
                retry_config=_retry_config(),
            )
        case "gs":
            return GCSStore(bucket, prefix=prefix, client_options=_client_config(), retry_config=_retry_config())
        case "az":
            return AzureStore(bucket, prefix=prefix, client_options=_client_config(), retry_config=_retry_config())
        case other:
            raise Fatal(f"{other}:// is not a store that tables can be on; use s3, gs, az, file or a local path")


def delete_everything(url: str, settings: ObjectStoreSettings) -> None:
    """Delete every object under `url`: what a trial made, never what a writer still writes to."""
    store = open_store(url, settings)
    for page in obstore.list(store):
        obstore.delete(store, [found["path"] for found in page])


def directories(url: str, settings: ObjectStoreSettings) -> list[str]:
    """The path segments directly under `url` that have objects below them. Lets the store's errors through."""
    prefixes = obstore.list_with_delimiter(open_store(url, settings))["common_prefixes"]
    return [prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes]


def table_url(root: str, pipeline: str, database: str, collection: str) -> str:
    """Where a collection's table is: `<root>/<pipeline>/<database>/<collection>`, each name through `path_segment`."""
    return "/".join((root.rstrip("/"), *(path_segment(name) for name in (pipeline, database, collection))))


def path_segment(name: str) -> str:
    """`name` as one path segment that every reader takes literally, in a URL, an object key or a directory.

    ASCII letters, digits, `_`, `-` and `.` stand for themselves; any other character, a leading dot, and an underscore
    that would read as an escape, become `_x<hex code point>_`. Distinct names stay distinct. Why not percent-encoding:
    docs/adr/0005-table-paths.md.
    """
    return _NEEDS_ESCAPE.sub(lambda match: f"_x{ord(match[0]):x}_", name)


def name_of_segment(segment: str) -> str:
    """The name that `path_segment` made the segment of."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), segment)


def local_path(url: str) -> Path:
    """The directory that a `file://` URL or a plain path names. `Fatal` when it is relative or on another host."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(url)
    if (parts.scheme == "file" and parts.netloc not in ("", "localhost")) or not path.is_absolute():
        raise Fatal(f"{url} is not an absolute local path; write /path or file:///path")
    return path


def map_store_error(error: Exception, what: str = "the object store") -> CdcError:
    """The platform's error for one of `obstore`, delta-rs or the file system; `what` names the object or the action.

    Handle `AlreadyExistsError` and `FileNotFoundError` first where they are an answer and not a failure. Whoever raises
    the result should chain the original (`raise map_store_error(e, …) from e`).
    """
    if isinstance(error, CdcError):
        return error
    text = _brief(error)
    if remedy := _permanent_remedy(error):
        return Fatal(f"{what}: {remedy} ({text})")
    if isinstance(error, (obstore_errors.GenericError, OSError)):
        return Transient(f"{what}: {text}")
    return Fatal(f"{what}: {type(error).__name__}: {text}")


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn the store's errors into `Transient` or `Fatal`."""
    try:
        yield
    except (obstore_errors.BaseError, OSError) as error:
        raise map_store_error(error, what) from error


def _brief(error: Exception) -> str:
    """One line of an error: without obstore's debug dump, and of an S3 error document only its code and message."""
    text = str(error).partition("\n\nDebug source:")[0]
    text = _S3_ERROR_DOCUMENT.sub(r"\1: \2", text)
    return redact_text(" ".join(text.split()))


_S3_ERROR_DOCUMENT = re.compile(
    r"(?:<\?xml[^>]*>\s*)?<Error>.*?<Code>(.*?)</Code>.*?<Message>(.*?)</Message>.*?</Error>", re.DOTALL
)


# Marks in the text of errors that no retry cures. S3's own error codes, and the status lines that obstore prints for
# the rest.
_PERMANENT_MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("NoSuchBucket", "The specified bucket does not exist"),
        "the bucket does not exist; create it or correct the root",
    ),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "401 Unauthorized", "403 Forbidden", "AccessDenied"),
        "the store refuses the credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the key's permissions",
    ),
    (
        ("ExpiredToken", "InvalidToken", "The provided token has expired"),
        "the session token is no longer valid; set a new AWS_SESSION_TOKEN",
    ),
    (
        ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"),
        "the bucket is in another region; set AWS_REGION to the bucket's",
    ),
    (
        ("InvalidContentType", "wrong version number"),
        "the endpoint does not speak TLS; write http:// in S3_ENDPOINT",
    ),
    (
        ("UnknownIssuer", "invalid peer certificate", "certificate verify failed"),
        "the endpoint's certificate is not trusted; install its CA on this machine",
    ),
    (
        ("URL scheme is not allowed", "BadScheme"),
        "plain http is not allowed here; set S3_ENDPOINT to the store's http:// URL to allow it",
    ),
)


def _permanent_remedy(error: Exception) -> str | None:
    text = str(error)  # whole: the reason for a failed TLS handshake stands only in obstore's debug dump
    for marks, remedy in _PERMANENT_MARKS:
        if any(mark in text for mark in marks):
            return remedy
    if isinstance(error, (obstore_errors.PermissionDeniedError, obstore_errors.UnauthenticatedError, PermissionError)):
        return "access is denied; check the credentials, or the owner and mode of the local directory"
    if isinstance(error, FileNotFoundError):
        return "an object that must exist is missing; something else deleted it"
    if isinstance(error, obstore_errors.AlreadyExistsError):
        return "an object that must be new exists already; something else writes here"
    return None


def _local_store(path: Path) -> ObjectStore:
    try:
        return LocalStore(path, mkdir=True)
    except (OSError, obstore_errors.BaseError) as error:
        raise Fatal(
            f"directory {path} cannot be opened: {_brief(error)}; correct the path or its permissions"
        ) from error


def _s3_config(settings: ObjectStoreSettings) -> S3Config:
    config: S3Config = {
        "region": settings.region,
        "conditional_put": "etag",
        "virtual_hosted_style_request": settings.endpoint is None,
    }
    if settings.endpoint:
        config["endpoint"] = settings.endpoint.rstrip("/")
    if settings.access_key_id:
        config["access_key_id"] = settings.access_key_id
    if settings.secret_access_key:
        config["secret_access_key"] = settings.secret_access_key.get_secret_value()
    if settings.session_token:
        config["session_token"] = settings.session_token.get_secret_value()
    return config


def _client_config(*, allow_http: bool = False) -> ClientConfig:
    return {
        "allow_http": allow_http,
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }


def _retry_config() -> RetryConfig:
    return {
        "max_retries": MAX_REQUEST_RETRIES,
        "retry_timeout": timedelta(seconds=REQUEST_RETRY_LIMIT_S),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
    }
