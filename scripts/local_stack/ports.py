"""Ports of the parts: the defaults where they are free, else the next free ones, kept in `.local/ports.json`.

A restart keeps the ports; ports of other checkouts of the same user are left alone even while those are stopped.
"""

import fcntl
import json
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import StackError

HOST = "127.0.0.1"
GRPC_OFFSET = 10_000
"""SeaweedFS serves gRPC on each HTTP port plus this."""
MAX_CANDIDATES = 500


@dataclass(frozen=True)
class PortSpec:
    variable: str
    default: int
    offsets: tuple[int, ...] = (0,)
    """What the part takes, relative to the port itself."""

    def taken_with(self, port: int) -> set[int]:
        return {port + offset for offset in self.offsets}


PORTS = (
    PortSpec("MONGODB_PORT", 27017),
    PortSpec("KAFKA_PORT", 9092),
    PortSpec("KAFKA_CONTROLLER_PORT", 9093),
    PortSpec("CONNECT_PORT", 8083),
    PortSpec("S3_PORT", 8333, (0, GRPC_OFFSET)),
    PortSpec("SEAWEEDFS_MASTER_PORT", 9333, (0, GRPC_OFFSET)),
    PortSpec("SEAWEEDFS_VOLUME_PORT", 8380, (0, GRPC_OFFSET)),
    PortSpec("SEAWEEDFS_FILER_PORT", 8888, (0, GRPC_OFFSET)),
    PortSpec("SEAWEEDFS_METRICS_PORT", 9327),
    PortSpec("POSTGRES_PORT", 5432),
    PortSpec("PROMETHEUS_PORT", 9090),
    PortSpec("WRITER_HTTP_PORT", 8090),
    PortSpec("API_PORT", 8000),
    PortSpec("RECONCILIATION_HTTP_PORT", 8091),
)


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now. Connections that linger in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except (OSError, OverflowError):
            return False
    return True


def choose_ports(
    wanted: Mapping[str, int],
    kept: Mapping[str, int],
    reserved: Collection[int],
    free: Callable[[int], bool] = is_free,
) -> dict[str, int]:
    """A port for each of `PORTS`.

    `wanted`: set by the user, taken or refused (`StackError`), never changed. `kept`: chosen on an earlier start, kept
    where still free. `reserved`: numbers that belong to somebody else although free now.
    """
    chosen: dict[str, int] = {}
    used: set[int] = set()

    def fits(spec: PortSpec, port: int) -> bool:
        numbers = spec.taken_with(port)
        return not numbers & used and max(numbers) < 65_536 and all(free(number) for number in numbers)

    for spec in PORTS:
        if spec.variable in wanted:
            port = wanted[spec.variable]
            if not fits(spec, port):
                raise StackError(
                    f"{spec.variable}={port} is taken: stop what listens there, or set another port in .env"
                )
            chosen[spec.variable] = port
            used |= spec.taken_with(port)
    for spec in PORTS:
        if spec.variable in chosen:
            continue
        kept_port = [kept[spec.variable]] if spec.variable in kept else []
        fresh = (port for port in _candidates(spec) if not spec.taken_with(port) & set(reserved))
        port = next((port for port in (*kept_port, *fresh) if fits(spec, port)), 0)
        if port == 0:
            raise StackError(f"no free port near {spec.default} for {spec.variable}: set one in .env")
        chosen[spec.variable] = port
        used |= spec.taken_with(port)
    return {spec.variable: chosen[spec.variable] for spec in PORTS}


def numbers_of(ports: Mapping[str, int]) -> set[int]:
    """Every port number that parts on these ports listen on."""
    return {number for spec in PORTS if spec.variable in ports for number in spec.taken_with(ports[spec.variable])}


def _candidates(spec: PortSpec) -> range:
    return range(spec.default, spec.default + MAX_CANDIDATES)


def read_ports(path: Path) -> dict[str, int]:
    """What an earlier start chose; empty when there is none or the file is damaged (then ports are chosen anew)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {spec.variable: int(content[spec.variable]) for spec in PORTS if spec.variable in content}
    except (OSError, ValueError, TypeError):
        return {}


def write_ports(path: Path, ports: Mapping[str, int]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(dict(ports), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


@contextmanager
def other_checkouts(cache: Path, own: Path) -> Iterator[set[int]]:
    """Ports that this user's other checkouts have chosen, while nobody else is choosing. `own`: our ports file."""
    with (cache / "checkouts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        registry = cache / "checkouts"
        known = registry.read_text(encoding="utf-8").splitlines() if registry.exists() else []
        present = [path for path in dict.fromkeys(known) if path != str(own) and Path(path).exists()]
        registry.write_text("\n".join([*present, str(own)]) + "\n", encoding="utf-8")
        yield set().union(*(numbers_of(read_ports(Path(path))) for path in present))
