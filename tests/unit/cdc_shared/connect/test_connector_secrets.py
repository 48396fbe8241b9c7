"""Connectors' secrets: in files of their own, named by the configurations, and taken out of what is shown."""

import os
import random
import stat
from pathlib import Path
from urllib.parse import quote

import pytest

from cdc_shared.connect.connector_secrets import ConnectorSecrets, connection_settings
from cdc_shared.errors import Fatal
from cdc_shared.security.secret_provider import Secret

pytestmark = pytest.mark.unit

URI = Secret("mongodb://u:hunter2@h:1/?replicaSet=rs")


@pytest.fixture
def secrets(tmp_path: Path) -> ConnectorSecrets:
    return ConnectorSecrets(tmp_path / "connect")


def files(secrets: ConnectorSecrets) -> list[Path]:
    return sorted(secrets._directory.iterdir())


def resolved(settings: dict[str, str]) -> dict[str, str]:
    """What Kafka's FileConfigProvider gives: Java's properties, where everything but letters and digits is escaped."""
    found = {}
    for name, placeholder in settings.items():
        provider, path, key = placeholder.removeprefix("${").removesuffix("}").split(":")
        assert provider == "file"
        lines = dict(line.split("=", 1) for line in Path(path).read_text("ascii").splitlines())
        found[name] = (
            lines[key].encode("ascii").decode("unicode-escape").encode("utf-16", "surrogatepass").decode("utf-16")
        )
    return found


def test_the_configuration_names_what_only_the_file_holds(secrets: ConnectorSecrets) -> None:
    settings = secrets.put("shop", URI)

    assert resolved(settings) == connection_settings(URI)
    assert "hunter2" not in repr(settings)
    [file] = files(secrets)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 == 0


def test_an_unchanged_secret_changes_no_configuration(secrets: ConnectorSecrets) -> None:
    assert secrets.put("shop", URI) == secrets.put("shop", URI)
    assert len(files(secrets)) == 1


def test_a_changed_secret_changes_the_configuration_and_keeps_the_old_file_until_told(
    secrets: ConnectorSecrets,
) -> None:
    before = secrets.put("shop", URI)
    after = secrets.put("shop", Secret("mongodb://u:changed@h:1/?replicaSet=rs"))

    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    assert resolved(before)["mongodb.password"] == "hunter2"
    assert resolved(after)["mongodb.password"] == "changed"
    secrets.keep_only("shop", after)
    assert len(files(secrets)) == 1
    assert resolved(after)["mongodb.password"] == "changed"


def test_pipelines_are_kept_apart(secrets: ConnectorSecrets) -> None:
    mine, other = secrets.put("shop", URI), secrets.put("shop-2", URI)
    secrets.keep_only("shop", {})
    assert resolved(other)["mongodb.password"] == "hunter2"
    mine = secrets.put("shop", URI)
    secrets.remove("shop-2")
    assert resolved(mine)["mongodb.password"] == "hunter2"
    secrets.remove("shop")
    secrets.remove("shop")
    assert files(secrets) == []


def test_any_value_comes_through_the_file(secrets: ConnectorSecrets, rng: random.Random) -> None:
    alphabet = "aZ09 \\=:#!\t\n\r\f'\"${}é中\U0001f511\x00\u2028"
    for _ in range(100):
        password = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
        settings = secrets.put("shop", Secret(f"mongodb://u:{quote(password, safe='')}@h/"))
        assert resolved(settings)["mongodb.password"] == password
        assert secrets.hide("shop", password) == "***"
        secrets.remove("shop")


def test_texts_are_shown_without_the_secrets(secrets: ConnectorSecrets) -> None:
    secrets.put("shop", Secret("mongodb://u:p%40ss%2Fword@h/"))
    assert secrets.hide("shop", "bad p@ss/word or p%40ss%2Fword for u at h") == "bad *** or *** for u at h"
    assert secrets.hide("other", "password=x1") == "password=***"
    whole = "mongodb://cn=u:hunter2@h/?authMechanism=PLAIN&tlsCertificateKeyFilePassword=abc123"
    secrets.put("ldap", Secret(whole))
    assert secrets.hide("ldap", f"[{whole}] [hunter2] [abc123]") == "[***] [***] [***]"


def test_a_host_alone_is_no_secret(secrets: ConnectorSecrets) -> None:
    secrets.put("shop", Secret("mongodb://h:1/?replicaSet=rs"))
    assert secrets.hide("shop", "mongodb://h:1/?replicaSet=rs is away") == "mongodb://h:1/?replicaSet=rs is away"


def test_what_was_lent_is_gone_and_so_is_what_a_killed_process_left(secrets: ConnectorSecrets) -> None:
    with secrets.lent(URI) as settings:
        assert resolved(settings)["mongodb.password"] == "hunter2"
        [left] = files(secrets)
        copy = left.with_name(left.name.replace("lent_", "lent_0"))
        copy.write_bytes(left.read_bytes())
        os.utime(copy, (0, 0))
    assert files(secrets) == [copy]
    with pytest.raises(ValueError, match="boom"), secrets.lent(URI):
        raise ValueError("boom")
    assert files(secrets) == []


@pytest.mark.parametrize("path", ["relative/path", "/a:b", "/a}b", "/a,b"])
def test_a_directory_that_no_placeholder_can_name_is_refused(path: str) -> None:
    with pytest.raises(Fatal, match="CONNECT_SECRETS_DIR"):
        ConnectorSecrets(Path(path))


def test_a_directory_that_cannot_be_written_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match="correct CONNECT_SECRETS_DIR") as caught:
        ConnectorSecrets(tmp_path / "file" / "connect").put("shop", URI)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "stripped", "auth_source"),
    [
        ("mongodb://u:p@h:1/shop", "mongodb://h:1/shop", "shop"),
        ("mongodb://u:p@h:1/shop?authSource=users&tls=true", "mongodb://h:1/shop?tls=true", "users"),
        ("mongodb://u:p@h1,h2", "mongodb://h1,h2/", "admin"),
        ("mongodb+srv://u:p@c.example.com/?w=majority", "mongodb+srv://c.example.com/?w=majority", "admin"),
        ("mongodb://u:p@h/?authMechanism=SCRAM-SHA-256", "mongodb://h/", "admin"),
        ("mongodb://u:p@h1:1,h2:2/?replicaSet=rs", "mongodb://h1:1,h2:2/?replicaSet=rs", "admin"),
    ],
)
def test_credentials_are_taken_out_of_the_connection_string(text: str, stripped: str, auth_source: str) -> None:
    assert connection_settings(Secret(text)) == {
        "mongodb.connection.string": stripped,
        "mongodb.user": "u",
        "mongodb.password": "p",
        "mongodb.authsource": auth_source,
    }


@pytest.mark.parametrize(
    "text",
    [
        "mongodb://h:1/?replicaSet=rs",
        "mongodb://u@h/?authMechanism=MONGODB-X509",
        "mongodb://u:p@h/?authMechanism=PLAIN",
    ],
)
def test_strings_whose_credentials_cannot_be_given_apart_stay_whole(text: str) -> None:
    assert connection_settings(Secret(text)) == {"mongodb.connection.string": text}


@pytest.mark.parametrize("text", ["", "http://u:hunter2@h", "u:hunter2@h", "mongodb://u:hunter2@", "mongodb://"])
def test_what_is_no_connection_string_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Fatal, match="connection string") as caught:
        connection_settings(Secret(text))
    assert "hunter2" not in str(caught.value)
