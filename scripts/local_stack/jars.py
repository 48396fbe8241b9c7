"""Kafka's and Debezium's jars: resolved by Maven from `config/local/pom.xml` into the user's cache, once a pom."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from local_stack.errors import StackError
from local_stack.layout import Layout
from local_stack.progress import Progress

DOWNLOAD_TIMEOUT_S = 1800
EXPECTED = ("libs/kafka_2.13-*.jar", "libs/connect-runtime-*.jar", "plugins/*/debezium-connector-mongodb-*.jar")


def jars_directory(layout: Layout) -> Path:
    """Where the jars of this checkout's pom are, present or not. Another pom (a newer Kafka) has another directory."""
    digest = hashlib.sha256((layout.templates / "pom.xml").read_bytes()).hexdigest()[:16]
    return layout.cache / "jars" / digest


def are_present(directory: Path) -> bool:
    return all(any(directory.glob(pattern)) for pattern in EXPECTED)


def ensure_jars(layout: Layout, find_maven: Callable[[], str], java: Path, progress: Progress) -> Path:
    """The directory with `libs` and `plugins`, downloaded when missing; an interrupted download leaves nothing behind
    that counts.

    Raises `StackError` with Maven's own last lines when the download fails.
    """
    directory = jars_directory(layout)
    if are_present(directory):
        return directory
    maven = find_maven()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / "download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if are_present(directory):
            return directory
        fresh = directory.with_name(f"{directory.name}.new")
        for leftover in (fresh, directory):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir()
        shutil.copyfile(layout.templates / "pom.xml", fresh / "pom.xml")
        progress.line("  Kafka and Debezium: downloading about 80 MB with Maven")
        _run_maven(maven, java, fresh, layout, progress)
        if not are_present(fresh):
            raise StackError(
                f"Maven ended without an error but did not bring all jars: see {layout.logs / 'maven.log'}"
            )
        fresh.rename(directory)
    return directory


def _run_maven(maven: str, java: Path, directory: Path, layout: Layout, progress: Progress) -> None:
    log = layout.logs / "maven.log"
    command = [maven, "-B", "--strict-checksums", "package"]
    if not _home_is_usable():
        command.insert(1, f"-Dmaven.repo.local={layout.cache / 'm2'}")
    environment = {**os.environ, "JAVA_HOME": str(java.resolve().parent.parent)}
    downloaded = 0
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            for line in process.stdout or ():
                out.write(line)
                if "Downloaded from" in line:
                    downloaded += 1
                    progress.now(f"Kafka and Debezium: {downloaded} files")
            code = process.wait(timeout=DOWNLOAD_TIMEOUT_S)
        finally:
            if process.poll() is None:
                process.kill()
    if code != 0:
        errors = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("[ERROR]")]
        raise StackError("\n".join(["the download of Kafka and Debezium failed:", *errors[:6], f"see {log}"]))


def _home_is_usable() -> bool:
    """Whether Maven can keep its own repository in ~/.m2, as it does for everything else this user builds."""
    repository = Path.home() / ".m2"
    place = repository if repository.exists() else repository.parent
    return place.exists() and os.access(place, os.W_OK | os.X_OK)
