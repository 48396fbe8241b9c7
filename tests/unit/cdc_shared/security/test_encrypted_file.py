"""Secrets survive, are private on disk, and no damaged or foreign file is taken for ours."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from cdc_shared.errors import Fatal
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import (
    HEADER,
    MAGIC,
    EncryptedFileProvider,
    create_key_file,
    read_key_file,
)
from cdc_shared.security.secret_provider import SecretNotFound

pytestmark = pytest.mark.unit

KEY = bytes(32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "cdc.secrets"


def test_put_get_list_delete(path: Path) -> None:
    provider = EncryptedFileProvider(path, KEY)
    assert provider.list() == {}
    provider.put("mongodb-uri", "mongodb://u:pw@h")
    provider.put("api", "ключ")
    assert provider.get("mongodb-uri").reveal() == "mongodb://u:pw@h"
    assert provider.get("api").reveal() == "ключ"
    assert list(provider.list().items()) == [("api", 1), ("mongodb-uri", 1)]
    assert provider.delete("api") is True
    assert provider.delete("api") is False
    assert provider.list() == {"mongodb-uri": 1}


def test_replacing_grows_the_version_and_is_seen_by_a_reader_already_open(path: Path) -> None:
    writer, reader = EncryptedFileProvider(path, KEY), EncryptedFileProvider(path, KEY)
    assert writer.put("s", "one").version == 1
    assert reader.get("s").reveal() == "one"
    assert writer.put("s", "two").version == 2
    assert (reader.get("s").reveal(), reader.get("s").version) == ("two", 2)
    assert writer.put("s", "two").version == 2, "an equal value is no new version"


def test_a_missing_secret_is_named_with_the_remedy(path: Path) -> None:
    with pytest.raises(SecretNotFound, match=r"no secret 'mongodb-uri' in .*cdc\.secrets: put it there"):
        EncryptedFileProvider(path, KEY).get("mongodb-uri")


def test_nothing_readable_is_on_disk_and_only_the_owner_may_read(path: Path) -> None:
    EncryptedFileProvider(path, KEY).put("mongodb-uri", "mongodb://u:hunter2@h")
    for file in path.parent.iterdir():
        content = file.read_bytes()
        assert b"hunter2" not in content
        assert b"mongodb" not in content
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(HEADER)


def test_the_wrong_key_is_refused_and_the_file_is_kept(path: Path) -> None:
    EncryptedFileProvider(path, KEY).put("s", "v")
    before = path.read_bytes()
    stranger = EncryptedFileProvider(path, crypto.generate_key())
    with pytest.raises(crypto.DecryptionFailed, match="wrong key"):
        stranger.get("s")
    with pytest.raises(crypto.DecryptionFailed):
        stranger.put("s", "overwritten")
    assert path.read_bytes() == before


def test_any_changed_byte_is_refused(path: Path) -> None:
    provider = EncryptedFileProvider(path, KEY)
    provider.put("s", "v")
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(Fatal):
            provider.get("s")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "is not a secrets file"),
        (b"", "is not a secrets file"),
        (MAGIC + b"\x02rest", "does not know"),
        (HEADER, "cut"),
    ],
)
def test_foreign_files_are_told_from_ours(path: Path, content: bytes, message: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(Fatal, match=message):
        EncryptedFileProvider(path, KEY).get("s")


def test_what_a_killed_writer_left_behind_does_no_harm(path: Path) -> None:
    provider = EncryptedFileProvider(path, KEY)
    provider.put("s", "v")
    path.with_name(path.name + ".partial").write_bytes(b"half a fi")
    assert provider.get("s").reveal() == "v"
    provider.put("t", "w")
    assert provider.list() == {"s": 1, "t": 1}


def _put_many(path: Path, name: str) -> None:
    provider = EncryptedFileProvider(path, KEY)
    for number in range(20):
        provider.put(f"{name}-{number}", str(number))


def test_writers_in_several_processes_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put_many, args=(path, f"p{n}")) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(EncryptedFileProvider(path, KEY).list()) == 60


def test_what_is_added_never_replaces_and_tells_what_is_there(tmp_path: Path) -> None:
    keeper = EncryptedFileProvider(tmp_path / "secrets.enc", KEY)
    assert keeper.add("signing-keys", "first").reveal() == "first"
    assert keeper.add("signing-keys", "second").reveal() == "first"
    assert keeper.list() == {"signing-keys": 1}
    keeper.put("signing-keys", "third")
    assert keeper.add("signing-keys", "fourth") == keeper.get("signing-keys")
    assert keeper.get("signing-keys").reveal() == "third"


def test_a_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "cdc.key"
    key = create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert create_key_file(path) == read_key_file(path) == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o602])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cdc.key"
    create_key_file(path)
    path.chmod(mode)
    with pytest.raises(Fatal, match=rf"has mode {mode:04o}.*chmod 600"):
        read_key_file(path)


def test_a_key_file_stricter_than_0600_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "cdc.key"
    key = create_key_file(path)
    path.chmod(0o400)
    assert read_key_file(path) == key


def test_missing_and_broken_key_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cdc.key"
    with pytest.raises(Fatal, match=r"cdc\.key cannot be read: No such file"):
        read_key_file(path)
    path.write_bytes(b"\xff\xfe not a key")
    os.chmod(path, 0o600)  # noqa: PTH101
    with pytest.raises(crypto.InvalidKey, match=r"cdc\.key holds no key"):
        read_key_file(path)
