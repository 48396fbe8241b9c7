"""Prerequisites: versions are read rightly, and what is missing is named with the command that installs it."""

import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from local_stack import prerequisites
from local_stack.errors import StackError
from local_stack.prerequisites import JAVA, MAVEN, find_java, java_major, require_java, require_maven, what_to_install
from local_stack.progress import Progress

pytestmark = pytest.mark.unit

SILENT = Progress(Console(quiet=True))


@pytest.mark.parametrize(
    ("output", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15\n', 17),
        ('java version "21" 2023-09-19 LTS\n', 21),
        ('openjdk version "1.8.0_402"\n', 8),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25-ea"\n', 25),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_java_tells_its_version(output: str, major: int | None) -> None:
    assert java_major(output) == major


def fake_java(directory: Path, version: str) -> Path:
    java = directory / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def test_java_home_wins_unless_it_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = fake_java(tmp_path / "path", "17.0.1")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")

    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "new", "21.0.1").parent.parent))
    assert find_java() == tmp_path / "new" / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "11.0.1").parent.parent))
    assert find_java() == on_path
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    assert find_java() == on_path


def test_the_message_names_what_is_missing_and_how_to_install_it() -> None:
    message = what_to_install([JAVA, MAVEN])

    assert "sudo apt-get install -y --no-install-recommends openjdk-17-jre-headless maven" in message
    assert "Java 17 (or newer)" in message
    assert "make up" in message


def test_an_ordinary_user_without_java_and_maven_is_told_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(prerequisites.os, "geteuid", lambda: 1000)

    with pytest.raises(StackError, match=r"openjdk-17-jre-headless maven"):
        require_java(SILENT)
    with pytest.raises(StackError, match=r"install -y --no-install-recommends maven"):
        require_maven(SILENT)


def fake_apt(monkeypatch: pytest.MonkeyPatch, known: set[str], code: int) -> list[list[str]]:
    """apt-get that ends with `code`, apt-cache that knows only `known`. Returns the commands that were run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if command[0] == "apt-cache":
            return subprocess.CompletedProcess(command, 0, "Package: x" if command[-1] in known else "", "")
        return subprocess.CompletedProcess(command, code, "Reading package lists...", "E: Unable to locate package\n")

    monkeypatch.setattr(prerequisites.subprocess, "run", run)
    return commands


def test_root_gets_java_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_apt(monkeypatch, {"openjdk-17-jre-headless"}, 0)

    prerequisites.apt_install([JAVA], SILENT)

    assert commands[-1][-4:] == ["install", "-y", "--no-install-recommends", "openjdk-17-jre-headless"]


def test_a_release_without_java_17_gets_its_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_apt(monkeypatch, set(), 0)

    prerequisites.apt_install([JAVA], SILENT)

    assert commands[-1][-1] == "default-jre-headless"


def test_a_failed_installation_says_what_apt_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(monkeypatch, {"openjdk-17-jre-headless"}, 100)

    with pytest.raises(StackError, match=r"apt-get .*openjdk-17-jre-headless.* failed:(.|\n)*Unable to locate package"):
        prerequisites.apt_install([JAVA], SILENT)
