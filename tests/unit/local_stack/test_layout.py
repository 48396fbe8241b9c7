"""Paths: spaces are fine, what the parts cannot take is refused, sockets stay short, state stays private."""

from pathlib import Path

import pytest

from local_stack.errors import StackError
from local_stack.layout import MAX_SOCKET_PATH_BYTES, Layout, user_cache

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("character", list(",:;#%$\"'"))
def test_a_path_that_the_parts_cannot_take_is_refused(tmp_path: Path, character: str) -> None:
    with pytest.raises(StackError, match="move it elsewhere"):
        Layout.of(tmp_path / f"check{character}out")


def test_a_path_with_spaces_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))

    assert Layout.of(tmp_path / "my checkout").local == tmp_path / "my checkout" / ".local"


def test_the_socket_lies_under_local_while_its_path_is_short() -> None:
    assert Layout(Path("/src/cdc"), Path("/c")).supervisor_socket == Path("/src/cdc/.local/run/supervisor.sock")


def test_a_deep_checkout_gets_a_short_socket_of_its_own() -> None:
    deep = Path("/") / ("d" * 100)
    socket = Layout(deep, Path("/c")).supervisor_socket

    assert len(str(socket)) <= MAX_SOCKET_PATH_BYTES
    assert socket != Layout(deep / "other", Path("/c")).supervisor_socket
    assert socket == Layout(deep, Path("/c")).supervisor_socket


def test_directories_are_closed_to_others_but_on_the_way_to_postgres(layout: Layout) -> None:
    layout.make_directories()  # again: nothing changes

    modes = {path.name: path.stat().st_mode & 0o777 for path in layout.local.iterdir()}

    assert modes.pop("data") & 0o005 == 0o005
    assert modes == dict.fromkeys(("logs", "config", "run", "secrets"), 0o700)


def test_downloads_go_to_the_users_cache_or_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert user_cache(tmp_path) == tmp_path / "cache" / "cdc-platform"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/proc/no-home-here")
    assert user_cache(tmp_path) == tmp_path / ".local" / "cache"
