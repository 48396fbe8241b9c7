"""References are resolved by scheme; what is none is refused and not repeated."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from cdc_shared.errors import Fatal
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import EncryptedFileProvider, create_key_file
from cdc_shared.security.references import InvalidReference, resolve_reference, secret_providers
from cdc_shared.security.secret_provider import SecretNotFound
from cdc_shared.settings import SecretsSettings

pytestmark = pytest.mark.unit

NOTHING = SecretsSettings(file=None, key_file=None, key=None)


def test_an_environment_reference() -> None:
    providers = secret_providers(NOTHING, {"MONGODB_URI": "mongodb://h", "EMPTY": ""})
    assert resolve_reference("env:MONGODB_URI", providers).reveal() == "mongodb://h"
    for name in ("MISSING", "EMPTY"):
        with pytest.raises(SecretNotFound, match=f"{name} is not set"):
            resolve_reference(f"env:{name}", providers)


def test_a_secret_reference_with_a_key_file(tmp_path: Path) -> None:
    file, key_file = tmp_path / "s", tmp_path / "k"
    EncryptedFileProvider(file, create_key_file(key_file)).put("team/mongodb-uri", "v")
    providers = secret_providers(SecretsSettings(file=file, key_file=key_file, key=None), {})
    assert resolve_reference("secret:team/mongodb-uri", providers).reveal() == "v"
    with pytest.raises(SecretNotFound, match="'other'"):
        resolve_reference("secret:other", providers)


def test_a_secret_reference_with_the_key_in_the_environment(tmp_path: Path) -> None:
    key = crypto.generate_key()
    EncryptedFileProvider(tmp_path / "s", key).put("n", "v")
    settings = SecretsSettings(file=tmp_path / "s", key_file=None, key=SecretStr(crypto.encode_key(key)))
    assert resolve_reference("secret:n", secret_providers(settings, {})).reveal() == "v"


def test_a_file_that_is_not_there_yet_is_named_and_read_once_it_is(tmp_path: Path) -> None:
    file, key_file = tmp_path / "secrets.enc", tmp_path / "k"
    key = create_key_file(key_file)
    providers = secret_providers(SecretsSettings(file=file, key_file=key_file, key=None), {"URI": "v"})

    with pytest.raises(SecretNotFound, match=r"'n'.*secrets\.enc does not exist yet.*env: reference"):
        resolve_reference("secret:n", providers)
    assert resolve_reference("env:URI", providers).reveal() == "v"

    EncryptedFileProvider(file, key).put("n", "v")
    assert resolve_reference("secret:n", providers).reveal() == "v"


def test_without_a_provider_the_remedy_is_named() -> None:
    with pytest.raises(Fatal, match=r"secret:mongodb-uri cannot be resolved.*CDC_SECRETS_FILE"):
        resolve_reference("secret:mongodb-uri", secret_providers(NOTHING, {}))


def test_a_file_needs_exactly_one_key(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="without its key"):
        secret_providers(SecretsSettings(file=tmp_path / "s", key_file=None, key=None), {})
    with pytest.raises(Fatal, match="both set"):
        secret_providers(SecretsSettings(file=tmp_path / "s", key_file=tmp_path / "k", key=SecretStr("x")), {})


@pytest.mark.parametrize(
    "text",
    ["mongodb://u:hunter2@h", "hunter2", "", "secret:", "vault:x", "env:A B", "secret:x\n", "secret:-x", "Secret:x"],
)
def test_what_is_no_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        resolve_reference(text, secret_providers(NOTHING, {}))
    assert "hunter2" not in str(caught.value)
