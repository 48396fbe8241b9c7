"""Credentials: random, private, made once, never replaced under existing data, never shown."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import secret_providers
from cdc_shared.settings import SecretsSettings
from local_stack.credentials import Credentials, ensure_data_key, ensure_secrets_key, load_or_generate
from local_stack.errors import StackError
from local_stack.private_files import write_private

pytestmark = pytest.mark.unit


def test_credentials_are_made_once_in_a_private_file(tmp_path: Path) -> None:
    first = load_or_generate(tmp_path, has_data=False)

    assert load_or_generate(tmp_path, has_data=True) == first
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(first.s3_encryption_key)) == 32
    assert first != Credentials.generate()


def test_lost_credentials_are_not_replaced_while_there_is_data(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="make clean up"):
        load_or_generate(tmp_path, has_data=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", '{"s3_access_key_id": ', "[]"])
def test_damaged_credentials_are_named_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)

    with pytest.raises(StackError, match=r"credentials\.json"):
        load_or_generate(tmp_path, has_data=False)

    assert path.read_text() == content


def test_credentials_from_before_the_control_plane_get_its_admins_password_once(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    first = load_or_generate(tmp_path, has_data=False)
    older = json.loads(path.read_text())
    del older["api_admin_password"]
    path.write_text(json.dumps(older))

    completed = load_or_generate(tmp_path, has_data=True)

    assert replace(completed, api_admin_password=first.api_admin_password) == first
    assert len(completed.api_admin_password) >= 20
    assert load_or_generate(tmp_path, has_data=True) == completed
    assert path.stat().st_mode & 0o777 == 0o600


def test_secrets_do_not_show(tmp_path: Path) -> None:
    credentials = load_or_generate(tmp_path, has_data=False)

    shown = repr(credentials)

    for secret in (
        credentials.s3_secret_access_key,
        credentials.s3_encryption_key,
        credentials.postgres_password,
        credentials.api_admin_password,
    ):
        assert secret not in shown
        assert secret in json.loads((tmp_path / "credentials.json").read_text()).values()


def test_the_secrets_key_is_32_bytes_made_once_in_a_private_file(tmp_path: Path) -> None:
    path = ensure_secrets_key(tmp_path)
    key = path.read_text()

    assert len(base64.b64decode(key)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_secrets_key(tmp_path).read_text() == key


def test_the_data_key_is_made_once_and_found_where_the_endpoints_say(tmp_path: Path) -> None:
    def key() -> str:
        ensure_data_key(tmp_path)
        settings = SecretsSettings(file=tmp_path / "secrets.enc", key_file=tmp_path / "secrets.key")
        return DataKeys.resolve("secret:cdc-data-key", secret_providers(settings)).current("shop").id

    assert key() == key()
    assert (tmp_path / "secrets.enc").stat().st_mode & 0o777 == 0o600


def test_a_secrets_file_that_does_not_open_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secrets.enc"
    path.write_text("something else")

    with pytest.raises(StackError, match=r"secrets\.enc cannot be used"):
        ensure_data_key(tmp_path)

    assert path.read_text() == "something else"


def test_a_private_file_replaces_what_was_there_whatever_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
