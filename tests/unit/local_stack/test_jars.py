"""The jars: downloaded once for each pom, and only a whole download counts."""

from pathlib import Path

import pytest
from rich.console import Console

from local_stack.errors import StackError
from local_stack.jars import are_present, ensure_jars, jars_directory
from local_stack.layout import Layout
from local_stack.progress import Progress

pytestmark = pytest.mark.unit

SILENT = Progress(Console(quiet=True))
JARS = ("libs/kafka_2.13-4.3.1.jar", "libs/connect-runtime-4.3.1.jar", "plugins/d/debezium-connector-mongodb-3.6.1.jar")


def fake_maven(directory: Path, jars: tuple[str, ...], code: int = 0) -> str:
    """A program that makes `jars` in its directory, as the real one does there."""
    directory.mkdir(exist_ok=True)
    maven = directory / "mvn"
    makes = "".join(f"mkdir -p $(dirname {jar}); echo jar > {jar}\n" for jar in jars)
    maven.write_text(f"#!/bin/sh\ntest -f pom.xml || exit 9\n{makes}echo '[ERROR] no route to host'\nexit {code}\n")
    maven.chmod(0o755)
    return str(maven)


def no_maven() -> str:
    raise AssertionError("nothing is to be downloaded")


def test_jars_are_downloaded_once(layout: Layout, tmp_path: Path) -> None:
    maven = fake_maven(tmp_path / "bin", JARS)

    directory = ensure_jars(layout, lambda: maven, Path("/usr/bin/java"), SILENT)

    assert are_present(directory)
    assert directory.is_relative_to(layout.cache)
    assert ensure_jars(layout, no_maven, Path("/usr/bin/java"), SILENT) == directory


def test_an_interrupted_download_does_not_count_and_is_cleared(layout: Layout, tmp_path: Path) -> None:
    directory = jars_directory(layout)
    leftover = directory.with_name(f"{directory.name}.new")
    (leftover / "libs").mkdir(parents=True)
    (leftover / "libs" / "half.jar").touch()
    (directory / "libs").mkdir(parents=True)

    ensure_jars(layout, lambda: fake_maven(tmp_path / "bin", JARS), Path("/usr/bin/java"), SILENT)

    assert not leftover.exists()
    assert not (directory / "libs" / "half.jar").exists()


def test_a_failed_download_says_what_maven_said_and_leaves_nothing_that_counts(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no route to host(.|\n)*maven\.log"):
        ensure_jars(layout, lambda: fake_maven(tmp_path / "bin", JARS, code=1), Path("/usr/bin/java"), SILENT)

    assert not jars_directory(layout).exists()


def test_a_download_that_brings_too_little_is_refused(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="did not bring all jars"):
        ensure_jars(layout, lambda: fake_maven(tmp_path / "bin", JARS[:1]), Path("/usr/bin/java"), SILENT)


def test_another_pom_has_jars_of_its_own(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other", layout.cache)
    (other.root / "config" / "local").mkdir(parents=True)
    (other.templates / "pom.xml").write_text("<project/>")

    assert jars_directory(other) != jars_directory(layout)
