"""What must be on the machine before the stack can run: a Java runtime and Maven. Installed by apt where that is ours
to do.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import StackError
from local_stack.progress import Progress

MIN_JAVA = 17
APT_TIMEOUT_S = 600


@dataclass(frozen=True)
class Program:
    command: str
    purpose: str
    debian_package: str


JAVA = Program("java", f"a Java {MIN_JAVA} (or newer) runtime, for Kafka and Kafka Connect", "openjdk-17-jre-headless")
MAVEN = Program("mvn", "Maven, to download Kafka and Debezium", "maven")
PROMETHEUS = Program("prometheus", "Prometheus", "prometheus")


def java_major(version_output: str) -> int | None:
    """Major version in what `java -version` prints: `openjdk version "17.0.15"`, or `"1.8.0_402"` before Java 9."""
    match = re.search(r'version "(?:1\.)?(\d+)', version_output)
    return int(match.group(1)) if match else None


def find_java() -> Path | None:
    """A Java that is new enough: JAVA_HOME's first, then the PATH's."""
    home = os.environ.get("JAVA_HOME")
    candidates = [Path(home) / "bin" / "java"] if home else []
    on_path = shutil.which("java")
    candidates += [Path(on_path)] if on_path else []
    for java in candidates:
        if not java.exists():
            continue
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30)
        if (java_major(done.stderr + done.stdout) or 0) >= MIN_JAVA:
            return java
    return None


def can_install() -> bool:
    """Root on Debian, Ubuntu or a relative."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def what_to_install(programs: list[Program]) -> str:
    """The message for somebody whose machine lacks `programs`."""
    lines = [f"  {program.command}: {program.purpose}" for program in programs]
    packages = " ".join(program.debian_package for program in programs)
    how = f"On Debian or Ubuntu:\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}"
    return "\n".join(["not installed:", *lines, how, "then run `make up` again"])


def apt_install(programs: list[Program], progress: Progress) -> None:
    """Install the packages of `programs`. Raises `StackError` with the last lines of apt when it fails."""
    packages = [available(program.debian_package) for program in programs]
    progress.line(f"  installing {' '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=120"]
    install = ["apt-get", *wait, "install", "-y", "--no-install-recommends", *packages]
    for command in (["apt-get", *wait, "update"], install):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=APT_TIMEOUT_S
        )
        if done.returncode != 0 and command is install:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise StackError(f"`{' '.join(command)}` failed:\n{tail}")


def available(package: str) -> str:
    """`package`, or where this release of the distribution has a newer Java only, its default one."""
    if not package.startswith("openjdk-"):
        return package
    done = subprocess.run(["apt-cache", "show", package], capture_output=True, text=True, check=False, timeout=60)
    return package if done.returncode == 0 and done.stdout.strip() else "default-jre-headless"


def require_java(progress: Progress) -> Path:
    """Path of a Java runtime that is new enough, installed when that is ours to do."""
    java = find_java()
    if java is None and can_install():
        apt_install([JAVA], progress)
        java = find_java()
    if java is None:
        missing = [JAVA] if shutil.which(MAVEN.command) else [JAVA, MAVEN]
        raise StackError(what_to_install(missing))
    return java


def require_maven(progress: Progress) -> str:
    maven = shutil.which(MAVEN.command)
    if maven is None and can_install():
        apt_install([MAVEN], progress)
        maven = shutil.which(MAVEN.command)
    if maven is None:
        raise StackError(what_to_install([MAVEN]))
    return maven
