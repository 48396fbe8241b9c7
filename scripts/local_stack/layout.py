"""Where the stack keeps its things: everything under `.local/` of the checkout, downloads in the user's cache."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import StackError

# A unix socket's path must fit 108 bytes; supervisord first binds `<path>.<pid>`, so leave room for that.
MAX_SOCKET_PATH_BYTES = 95

# Characters with a meaning in supervisord's config, a Java class path or Kafka's lists of directories. Spaces are fine.
UNSUPPORTED_PATH_CHARACTERS = set(",:;#%$\"'\\\n")


@dataclass(frozen=True)
class Layout:
    """Paths of one checkout's stack. Two checkouts share nothing but `cache`."""

    root: Path
    cache: Path

    @classmethod
    def of(cls, root: Path) -> "Layout":
        """The layout of the checkout at `root`. Raises `StackError` when its path cannot be used."""
        root = root.resolve()
        cache = user_cache(root)
        for path in (root, cache):
            unsupported = UNSUPPORTED_PATH_CHARACTERS & set(str(path))
            if unsupported:
                shown = " ".join(sorted(unsupported))
                raise StackError(
                    f"the path {path} holds {shown} which Kafka or supervisord cannot take: move it elsewhere"
                )
        return cls(root, cache)

    @property
    def local(self) -> Path:
        return self.root / ".local"

    @property
    def data(self) -> Path:
        return self.local / "data"

    @property
    def logs(self) -> Path:
        return self.local / "logs"

    @property
    def config(self) -> Path:
        """Rendered configuration files; no secrets."""
        return self.local / "config"

    @property
    def secrets(self) -> Path:
        """Directory of mode 0700; its files are 0600."""
        return self.local / "secrets"

    @property
    def connect_secrets(self) -> Path:
        """What Kafka Connect's worker reads the connectors' secrets from. It does not start without the directory."""
        return self.secrets / "connect"

    @property
    def endpoints(self) -> Path:
        return self.local / "endpoints.env"

    @property
    def ports(self) -> Path:
        return self.local / "ports.json"

    @property
    def lock(self) -> Path:
        return self.local / "stack.lock"

    @property
    def supervisor_config(self) -> Path:
        """Mode 0600: it holds the parts' environments."""
        return self.secrets / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        return self.local / "run" / "supervisord.pid"

    @property
    def supervisor_socket(self) -> Path:
        """Under `.local/run`, or in a private directory with a short name when that path is too long for a socket."""
        wanted = self.local / "run" / "supervisor.sock"
        if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH_BYTES:
            return wanted
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"cdc-{os.getuid()}-{digest}" / "supervisor.sock"

    @property
    def templates(self) -> Path:
        return self.root / "config" / "local"

    @property
    def venv_bin(self) -> Path:
        return self.root / ".venv" / "bin"

    def make_directories(self) -> None:
        """Create what is missing, closed to others except on the way to Postgres's data, which may run as `nobody`."""
        for path in (self.local, self.data):
            path.mkdir(exist_ok=True)
        for path in (self.logs, self.config, self.local / "run", self.secrets, self.connect_secrets):
            path.mkdir(mode=0o700, exist_ok=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        socket_directory = self.supervisor_socket.parent
        socket_directory.mkdir(mode=0o700, exist_ok=True)
        if socket_directory.stat().st_uid != os.getuid():
            raise StackError(
                f"{socket_directory} belongs to somebody else: remove it, or move this checkout to a shorter path"
            )


def user_cache(root: Path) -> Path:
    """Downloads, shared by all checkouts of this user and kept by `make clean`. Made when missing; `.local/cache` where
    the user has no home that can be written.
    """
    configured = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(configured) if configured else Path.home() / ".cache") / "cdc-platform"
    if not cache.is_absolute():  # the specification says to ignore such a value
        cache = Path.home() / ".cache" / "cdc-platform"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return root / ".local" / "cache"
    return cache if os.access(cache, os.W_OK | os.X_OK) else root / ".local" / "cache"
