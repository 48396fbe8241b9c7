"""supervisord: its configuration, rendered from the parts, and talking to it over a unix socket."""

import hashlib
import os
import shlex
import subprocess
import xmlrpc.client  # nosec B411
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from local_stack.errors import StackError
from local_stack.layout import Layout
from local_stack.parts.part import Part
from local_stack.private_files import write_private

LOG_MAX_BYTES = "10MB"
LOG_BACKUPS = 2
START_RETRIES = 10
"""supervisord waits one second longer before each retry: a part that cannot start is tried for about a minute."""
START_TIMEOUT_S = 20
CODE_SUFFIXES = (".py", ".sql")

MARKER = "CDC_LOCAL_STACK"
"""Environment variable of every process of a stack; its value is the checkout's path. Finds what a killed supervisord
left.
"""

DIGEST_VARIABLE = "CDC_CONFIG_DIGEST"
"""Makes changed configuration or code a changed program to supervisord, so that it is restarted."""


@dataclass(frozen=True)
class ProcessInfo:
    name: str
    state: str
    """supervisord's: RUNNING, STARTING, STOPPED, STOPPING, BACKOFF, EXITED, FATAL."""
    pid: int
    uptime_s: int


def render_config(layout: Layout, parts: Iterable[Part]) -> str:
    """supervisord's configuration. Nothing starts by itself: `make up` starts the parts in order."""
    # Without it supervisord warns that it keeps root's rights, which is meant here.
    user = "user=root\n" if os.geteuid() == 0 else ""
    head = f"""\
; Written by `make up`; do not edit.
[supervisord]
identifier=cdc-local-stack
logfile={_escape(layout.logs / "supervisord.log")}
logfile_maxbytes={LOG_MAX_BYTES}
logfile_backups={LOG_BACKUPS}
pidfile={_escape(layout.supervisor_pid)}
childlogdir={_escape(layout.logs)}
directory={_escape(layout.local)}
{user}minfds=1024

[unix_http_server]
file={_escape(layout.supervisor_socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(_render_program(layout, part) for part in parts if part.command)


def _render_program(layout: Layout, part: Part) -> str:
    values = {
        "command": _escape(shlex.join(part.command)),
        "directory": _escape(part.directory or layout.local),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": "1",
        "startretries": START_RETRIES,
        "stopsignal": part.stop_signal,
        "stopwaitsecs": part.stop_within_s,
        # The whole group: nothing that a part has started outlives it. Not `stopasgroup`: Postgres must pass its
        # signal on itself.
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": _escape(layout.logs / f"{part.name}.log"),
        "stdout_logfile_maxbytes": LOG_MAX_BYTES,
        "stdout_logfile_backups": LOG_BACKUPS,
    }
    environment = dict(part.environment)
    if part.files or part.sources:
        environment[DIGEST_VARIABLE] = _digest([*part.files.values(), *_code(part.sources)])
    values["environment"] = ",".join(f'{name}="{_escape(value)}"' for name, value in environment.items())
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    return f"\n[program:{part.name}]\n{lines}"


def _code(directories: Iterable[Path]) -> list[str]:
    return [
        path.read_text()
        for directory in directories
        for path in sorted(directory.rglob("*"))
        if path.suffix in CODE_SUFFIXES
    ]


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _escape(value: object) -> str:
    """supervisord expands %(name)s in every value."""
    return str(value).replace("%", "%%")


class Supervisor:
    """The supervisord of one checkout, reached over a unix socket that only this user can open: its XML is trusted.

    Each call opens its own connection, so threads may share this object.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def is_running(self) -> bool:
        try:
            self._call("getPID")
        except (OSError, HTTPException):
            return False
        return True

    def pid(self) -> int:
        return cast(int, self._call("getPID"))

    def start_daemon(self) -> None:
        """Start supervisord in the background. It answers when this returns."""
        command = [str(self._layout.venv_bin / "supervisord"), "-c", str(self._layout.supervisor_config)]
        done = subprocess.run(
            command,
            env={**os.environ, MARKER: str(self._layout.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_TIMEOUT_S,
        )
        if done.returncode != 0 or not self.is_running():
            message = (done.stderr or done.stdout).strip()[-500:]
            raise StackError(
                f"supervisord does not start: {message or 'see ' + str(self._layout.logs / 'supervisord.log')}"
            )

    def apply_config(self, text: str) -> list[str]:
        """Make supervisord's programs those of `text`. Programs whose definition changed are stopped. Returns their
        names.
        """
        write_private(self._layout.supervisor_config, text)
        added, changed, removed = cast(list[list[list[str]]], self._call("reloadConfig"))[0]
        for name in (*changed, *removed):
            self._call("stopProcessGroup", name)
            self._call("removeProcessGroup", name)
        for name in (*changed, *added):
            self._call("addProcessGroup", name)
        return [*changed, *removed]

    def processes(self) -> dict[str, ProcessInfo]:
        return {
            info["name"]: ProcessInfo(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                uptime_s=info["now"] - info["start"] if info["statename"] == "RUNNING" else 0,
            )
            for info in cast(list[dict[str, Any]], self._call("getAllProcessInfo"))
        }

    def start(self, name: str) -> None:
        """Ask for the part's process, without waiting. One that runs already is left alone."""
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StackError(f"{name} cannot be started: {fault.faultString}") from None

    def stop(self, name: str) -> None:
        """Stop the part's process and wait until it is gone."""
        try:
            self._call("stopProcess", name, True)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise StackError(f"{name} cannot be stopped: {fault.faultString}") from None

    def stop_all(self, names: Sequence[str]) -> None:
        """Stop several at the same time and wait until all are gone."""
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            list(pool.map(self.stop, names))

    def shutdown(self) -> None:
        self._call("shutdown")

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._layout.supervisor_socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()
