"""What the user may set about the stack: the environment first, then `.env`, then the defaults of `.env.example`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from local_stack.errors import StackError
from local_stack.ports import HOST, PORTS

DEFAULT_HEAP_MB = 512
DEFAULT_SAMPLE_RATE = 5.0
_KNOWN = {"MONGODB_URI", "KAFKA_HEAP_MB", "CONNECT_HEAP_MB", "S3_BUCKET", "SAMPLE", "SAMPLE_RATE"} | {
    spec.variable for spec in PORTS
}
_NOT_FOR_SUPERVISORD = re.compile(r"""["'\r\n]|\s[;#]""")
"""What its configuration has no way to write within a value."""


@dataclass(frozen=True)
class StackSettings:
    ports: Mapping[str, int] = field(default_factory=dict)
    """Ports the user insists on, by variable name."""
    mongodb_uri: str | None = None
    """A replica set of the user's own; None means that SecantusDB is started."""
    kafka_heap_mb: int = DEFAULT_HEAP_MB
    connect_heap_mb: int = DEFAULT_HEAP_MB
    bucket: str = "cdc"
    sample: bool = True
    sample_rate: float = DEFAULT_SAMPLE_RATE
    """Changes a second that the sample's generator makes."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What else `.env` holds: variables of the writer and of the API, as keys that specs refer to."""


def embedded_mongodb_uri(port: int) -> str:
    """SecantusDB's URI. Its streamed heartbeats clear the driver's pool, hence polling."""
    return f"mongodb://{HOST}:{port}/?replicaSet=secantus&serverMonitoringMode=poll"


def is_embedded_mongodb(uri: str) -> bool:
    """Whether `uri` is SecantusDB's, on whatever port an earlier start chose."""
    port = uri.partition("/?")[0].rpartition(":")[2]
    return port.isdecimal() and uri == embedded_mongodb_uri(int(port))


def load_settings(root: Path, environment: Mapping[str, str], kept_ports: Mapping[str, int]) -> StackSettings:
    """Settings of the checkout at `root`. Raises `StackError` naming the variable that is not valid.

    `kept_ports`: what earlier starts chose. A shell that has sourced `.local/endpoints.env` carries our own choices,
    which are not the user's wishes.
    """
    own = {name: str(port) for name, port in kept_ports.items()}
    if "MONGODB_PORT" in kept_ports:
        own["MONGODB_URI"] = embedded_mongodb_uri(kept_ports["MONGODB_PORT"])
    wishes = {name: value for name, value in environment.items() if value.strip() and own.get(name) != value}
    file = _file_values(root / ".env")
    values = {**file, **wishes}
    return StackSettings(
        ports={spec.variable: _port(spec.variable, values[spec.variable]) for spec in PORTS if spec.variable in values},
        mongodb_uri=_mongodb_uri(values.get("MONGODB_URI")),
        kafka_heap_mb=_number("KAFKA_HEAP_MB", values, DEFAULT_HEAP_MB, minimum=256),
        connect_heap_mb=_number("CONNECT_HEAP_MB", values, DEFAULT_HEAP_MB, minimum=256),
        bucket=values.get("S3_BUCKET", "cdc"),
        sample=_sample(values),
        sample_rate=_rate(values.get("SAMPLE_RATE")),
        variables={name: _variable(name, values[name]) for name in file if name not in _KNOWN},
    )


def _file_values(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value and value.strip()}


def _variable(name: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise StackError(f"{name} in .env is no name of a variable: use letters, digits and _")
    if _NOT_FOR_SUPERVISORD.search(text):
        raise StackError(f"{name} in .env has a quote, a line break, or a space before ; or #: take it out")
    return text


def _port(variable: str, text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= 65_535:
        raise StackError(f"{variable} is {text!r}: set it to a port number from 1 to 65535, or leave it out")
    return int(text)


def _number(variable: str, values: Mapping[str, str], default: int, minimum: int) -> int:
    text = values.get(variable, str(default)).strip()
    if not text.isdecimal() or int(text) < minimum:
        raise StackError(f"{variable} is {text!r}: set it to a whole number of at least {minimum}")
    return int(text)


def _sample(values: Mapping[str, str]) -> bool:
    """On, unless the MongoDB is the user's own: nobody wants sample data there without having asked for it."""
    default = "0" if "MONGODB_URI" in values else "1"
    return values.get("SAMPLE", default).strip().lower() not in ("0", "false", "no")


def _rate(text: str | None) -> float:
    try:
        rate = float(text) if text else DEFAULT_SAMPLE_RATE
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise StackError(f"SAMPLE_RATE is {text!r}: set it to changes a second, more than 0 and at most 1000")
    return rate


def _mongodb_uri(text: str | None) -> str | None:
    if text is None:
        return None
    if not text.startswith(("mongodb://", "mongodb+srv://")):
        raise StackError("MONGODB_URI is no MongoDB URI: set it to mongodb://host:port/?replicaSet=name")
    return text
