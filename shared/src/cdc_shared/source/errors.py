"""What pymongo's errors mean to the platform, in one place. No message here repeats the connection string."""

from typing import Final

from bson.errors import BSONError
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.redaction import redact_text

MAX_DETAIL_CHARACTERS: Final = 300

_CREDENTIALS: Final = "correct the user, password or authSource in the connection string"
_REMEDIES: Final = {
    2: "this server does not understand the request; use a version that the platform supports",  # BadValue
    9: "this server does not understand the request; use a version that the platform supports",  # FailedToParse
    14: "this server does not understand the request; use a version that the platform supports",  # TypeMismatch
    11: _CREDENTIALS,  # UserNotFound
    13: "grant the connection's user this right on the database",  # Unauthorized
    18: _CREDENTIALS,  # AuthenticationFailed
    20: "the source must be a replica set or a sharded cluster",  # IllegalOperation
    59: "this server does not know the command; use a version that the platform supports",  # CommandNotFound
    72: "this server does not understand the request; use a version that the platform supports",  # InvalidOptions
    73: "correct the name of the database or collection",  # InvalidNamespace
    115: "this server does not support it; use a version that the platform supports",  # CommandNotSupported
    8000: _CREDENTIALS,  # Atlas: authentication
}
"""MongoDB's error codes that no retry cures, with what to do. Whatever is not among them may pass by itself."""
_ABOUT_THE_REQUEST: Final = (2, 9, 14)


class RequestRefused(Fatal):
    """The server does not take the request as it is: a value in it, or all such requests. `name` is its error's."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


def map_source_error(error: PyMongoError | BSONError, what: str) -> CdcError:
    """`Fatal` with the remedy for what no retry cures, else `Transient`; `what` names the action and the source."""
    if isinstance(error, OperationFailure):
        return _refused(error, what)
    if isinstance(error, ServerSelectionTimeoutError):
        return Transient(f"{what}: no primary answers: {_detail(str(error).partition(', Timeout:')[0])}")
    if isinstance(error, BSONError):
        return Fatal(f"{what}: not BSON that can be read or written: {_detail(str(error))}")
    if isinstance(error, ConfigurationError) and not _is_dns(error.__cause__):
        return Fatal(
            f"{what}: {_detail(str(error))}; correct the connection string, or use a version that is supported"
        )
    return Transient(f"{what}: {type(error).__name__}: {_detail(str(error))}")


def map_connection_error(error: PyMongoError | ValueError | OSError, what: str) -> CdcError:
    """The same for a client that could not even be made; pymongo's own words are not repeated.

    They may hold a piece of the password, where it has a character that should have been escaped.
    """
    if _is_dns(error.__cause__):
        return Transient(f"{what}: the DNS records that the connection string names were not found")
    if isinstance(error, OSError):
        return Fatal(f"{what}: a file that the connection string names cannot be read: {error.strerror}")
    return Fatal(
        f"{what}: the connection string is not valid; write mongodb://user:password@host:port/?replicaSet=name "
        "with %-escapes for special characters in the user and password"
    )


def _refused(error: OperationFailure, what: str) -> CdcError:
    """Map an answer of the server that is an error."""
    details = error.details or {}
    name = str(details.get("codeName") or f"error {error.code}")
    text = f"{what}: {name}: {_detail(str(details.get('errmsg') or error.args[0]))}"
    remedy = None if error.timeout else _REMEDIES.get(error.code or 0)
    if remedy is None:
        return Transient(text)
    text = f"{text}; {remedy}"
    return RequestRefused(text, name) if error.code in _ABOUT_THE_REQUEST else Fatal(text)


def _is_dns(cause: BaseException | None) -> bool:
    """Whether the look-up of a mongodb+srv name failed, which pymongo reports as a wrong configuration."""
    return cause is not None and type(cause).__module__.partition(".")[0] == "dns"


def _detail(text: str) -> str:
    # Cut before as well: redaction takes a time that grows with the square of a long word.
    return redact_text(text[: 2 * MAX_DETAIL_CHARACTERS])[:MAX_DETAIL_CHARACTERS]
