"""Stores from URLs, table paths that every reader takes literally, and errors by kind."""

import re
from pathlib import Path

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore import exceptions as obstore_errors
from obstore.store import GCSStore, LocalStore, S3Store
from pydantic import SecretStr

from cdc_shared.errors import Fatal, InvalidEvent, Transient
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import local_path, map_store_error, open_store, path_segment, table_url

pytestmark = pytest.mark.unit

SETTINGS = ObjectStoreSettings(
    endpoint="http://localhost:8333",
    access_key_id="id",
    secret_access_key=SecretStr("key"),
    session_token=None,
    region="eu-west-1",
)


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_local_store_is_made_with_its_directory(tmp_path: Path, form: str) -> None:
    store = open_store(form.format(tmp_path / "a" / "b"), SETTINGS)
    assert isinstance(store, LocalStore)
    obstore.put(store, "x/y.json", b"1", mode="create")
    assert (tmp_path / "a" / "b" / "x" / "y.json").read_bytes() == b"1"
    with pytest.raises(obstore_errors.AlreadyExistsError):
        obstore.put(store, "x/y.json", b"2", mode="create")


def test_s3_takes_bucket_prefix_and_settings_from_one_place() -> None:
    store = open_store("s3://lake/delta/shop/", SETTINGS)
    assert isinstance(store, S3Store)
    assert store.prefix == "delta/shop"
    config = store.config
    assert config["bucket"] == "lake"
    assert config["endpoint"] == "http://localhost:8333"
    assert config["region"] == "eu-west-1"
    assert config["conditional_put"] == "etag"
    assert str(config["virtual_hosted_style_request"]).lower() == "false"
    assert store.client_options is not None
    assert str(store.client_options["allow_http"]).lower() == "true"


def test_http_is_not_allowed_for_https_endpoints() -> None:
    store = open_store("s3://lake", SETTINGS.model_copy(update={"endpoint": "https://s3.example.com"}))
    assert isinstance(store, S3Store)
    assert store.client_options is not None
    assert str(store.client_options["allow_http"]).lower() == "false"


def test_google_storage() -> None:
    assert isinstance(open_store("gs://lake/delta", SETTINGS), GCSStore)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("relative/path", "not an absolute local path"),
        ("file://host/path", "not an absolute local path"),
        ("ftp://x/y", "ftp:// is not a store"),
        ("s3:///delta", "names no bucket"),
        ("s3://id:hunter2@lake/delta", "without credentials"),
    ],
)
def test_urls_that_name_no_store(url: str, part: str) -> None:
    with pytest.raises(Fatal, match=part) as caught:
        open_store(url, SETTINGS)
    assert "hunter2" not in str(caught.value)


def test_azure_without_an_account_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(Fatal, match=r"az://lake cannot be opened.*Account must be specified"):
        open_store("az://lake", SETTINGS)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal, match=r"directory .*file/below cannot be opened"):
        open_store(str(tmp_path / "file" / "below"), SETTINGS)


def test_local_paths() -> None:
    assert local_path("/a/b") == Path("/a/b")
    assert local_path("file:///a%20b") == Path("/a b")
    assert local_path("file://localhost/a") == Path("/a")


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("orders", "orders"),
        ("order-items.v2_x", "order-items.v2_x"),
        ("user_xref", "user_xref"),
        ("a b", "a_x20_b"),
        ("a/b", "a_x2f_b"),
        ("50%", "50_x25_"),
        ("ü", "_xfc_"),
        ("..", "_x2e_."),
        (".hidden", "_x2e_hidden"),
        ("a_x20_b", "a_x5f_x20_b"),
    ],
)
def test_path_segments(name: str, segment: str) -> None:
    assert path_segment(name) == segment


@given(st.text(min_size=1))
def test_a_segment_is_literal_everywhere_and_gives_its_name_back(name: str) -> None:
    segment = path_segment(name)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", segment)
    assert re.sub(r"_x([0-9a-f]+)_", lambda match: chr(int(match[1], 16)), segment) == name


def test_table_urls() -> None:
    assert table_url("s3://lake/delta/", "shop", "my db", "a/b") == "s3://lake/delta/shop/my_x20_db/a_x2f_b"
    assert table_url("/lake", "shop", "shop", "orders") == "/lake/shop/shop/orders"


def s3_error(status: str, code: str = "", message: str = "m") -> str:
    """As obstore 0.12 words an S3 answer, document and debug dump included."""
    body = (
        f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>'
    )
    said = (
        f"Generic S3 error: Error performing GET http://h/b/k in 1ms - Server returned non-2xx status code: {status}: "
    )
    return f'{said}{body}\n\nDebug source:\nGeneric {{\n    store: "S3",\n}}'


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (obstore_errors.GenericError(s3_error("503 Service Unavailable", "SlowDown")), Transient, "SlowDown"),
        (obstore_errors.GenericError(s3_error("500 Internal Server Error")), Transient, "500"),
        (obstore_errors.GenericError("HTTP error: error sending request"), Transient, "sending request"),
        (OSError("Generic S3 error: operation timed out"), Transient, "timed out"),
        (TimeoutError("timed out"), Transient, "timed out"),
        (OSError(28, "No space left on device"), Transient, "No space left"),
        (obstore_errors.GenericError(s3_error("403 Forbidden", "SignatureDoesNotMatch")), Fatal, "AWS_SECRET"),
        (obstore_errors.PermissionDeniedError(s3_error("403 Forbidden", "AccessDenied")), Fatal, "credentials"),
        (obstore_errors.UnauthenticatedError("nobody"), Fatal, "access is denied"),
        (PermissionError(13, "Permission denied"), Fatal, "local directory"),
        (FileNotFoundError(s3_error("404 Not Found", "NoSuchBucket")), Fatal, "bucket does not exist"),
        (FileNotFoundError(s3_error("404 Not Found", "NoSuchKey")), Fatal, "something else deleted it"),
        (obstore_errors.AlreadyExistsError("x"), Fatal, "something else writes here"),
        (obstore_errors.GenericError(s3_error("400 Bad Request", "ExpiredToken")), Fatal, "AWS_SESSION_TOKEN"),
        (obstore_errors.GenericError(s3_error("400 Bad Request", "AuthorizationHeaderMalformed")), Fatal, "AWS_REGION"),
        (obstore_errors.GenericError("x\n\nDebug source:\nInvalidMessage(InvalidContentType)"), Fatal, "S3_ENDPOINT"),
        (obstore_errors.GenericError("x\n\nDebug source:\ninvalid peer certificate: UnknownIssuer"), Fatal, "CA"),
        (obstore_errors.InvalidPathError("bad"), Fatal, "InvalidPathError"),
        (ValueError("odd"), Fatal, "ValueError: odd"),
    ],
)  # fmt: skip
def test_store_errors_by_kind(error: Exception, kind: type[Exception], part: str) -> None:
    mapped = map_store_error(error, "commit of shop.orders")
    assert type(mapped) is kind
    message = str(mapped)
    assert message.startswith("commit of shop.orders: ")
    assert part in message
    assert "Debug source" not in message
    assert "<" not in message
    assert "\n" not in message


def test_an_s3_error_document_is_reduced_to_code_and_message() -> None:
    error = obstore_errors.GenericError(s3_error("503 Service Unavailable", "SlowDown", "Please reduce\nyour rate"))
    assert str(map_store_error(error)).endswith("503 Service Unavailable: SlowDown: Please reduce your rate")


def test_the_platforms_own_errors_pass_through() -> None:
    error = InvalidEvent("x")
    assert map_store_error(error) is error


def test_credentials_in_an_errors_text_are_masked() -> None:
    error = obstore_errors.GenericError("cannot reach https://id:hunter2@store/b?X-Amz-Signature=abcdef0")
    assert "hunter2" not in str(map_store_error(error))
    assert "abcdef0" not in str(map_store_error(error))
