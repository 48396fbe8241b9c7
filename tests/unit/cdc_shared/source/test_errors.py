"""Errors of pymongo become ours, without the connection string."""

from __future__ import annotations

import pytest
from bson.errors import InvalidBSON
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from cdc_shared.errors import Fatal, Transient
from cdc_shared.source.errors import MAX_DETAIL_CHARACTERS, RequestRefused, map_connection_error, map_source_error

pytestmark = pytest.mark.unit


def refused(code: int, name: str, message: str = "no") -> OperationFailure:
    return OperationFailure(message, code, {"codeName": name, "errmsg": message})


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NetworkTimeout("timed out"),
        NotPrimaryError("not primary"),
        ServerSelectionTimeoutError("h:1: refused, Timeout: 5.0s, Topology Description: <…>"),
        ExecutionTimeout("operation exceeded time limit", 50),
        WTimeoutError("waiting for replication timed out", 64),
        refused(91, "ShutdownInProgress"),
        refused(134, "ReadConcernMajorityNotAvailableYet"),
        refused(123456, "NeverHeardOf"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_transient(error: PyMongoError) -> None:
    mapped = map_source_error(error, "read documents")
    assert isinstance(mapped, Transient)
    assert str(mapped).startswith("read documents: ")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (refused(13, "Unauthorized"), "grant"),
        (refused(18, "AuthenticationFailed"), "password"),
        (refused(73, "InvalidNamespace"), "name"),
        (ConfigurationError("Server at h requires another version"), "version"),
        (InvalidBSON("objsize too large"), "BSON"),
    ],
)
def test_what_no_retry_cures_is_fatal_and_says_what_to_do(error: PyMongoError, remedy: str) -> None:
    mapped = map_source_error(error, "read documents")
    assert isinstance(mapped, Fatal)
    assert remedy in str(mapped)


def test_a_request_that_the_server_does_not_take_is_told_apart() -> None:
    mapped = map_source_error(refused(2, "BadValue"), "read documents")
    assert isinstance(mapped, RequestRefused)
    assert mapped.name == "BadValue"
    assert not isinstance(map_source_error(refused(13, "Unauthorized"), "read documents"), RequestRefused)


def test_messages_are_short_and_show_no_password() -> None:
    secret = "mongodb://bob:hunter2@h/"
    for error in (
        AutoReconnect(f"{secret} {'x' * 5000}"),
        refused(18, "AuthenticationFailed", f"{secret} {'x' * 5000}"),
    ):
        text = str(map_source_error(error, "read"))
        assert "hunter2" not in text
        assert len(text) < MAX_DETAIL_CHARACTERS + 150
    topology = ServerSelectionTimeoutError("h:1: refused, Timeout: 5.0s, Topology Description: <servers…>")
    assert str(map_source_error(topology, "read")) == "read: no primary answers: h:1: refused"


def test_a_client_that_cannot_be_made_repeats_nothing_of_its_connection_string() -> None:
    for error in (ConfigurationError('Bad database name "ter2@host/"'), ValueError("Port must be 'ter2'")):
        mapped = map_connection_error(error, "connect")
        assert isinstance(mapped, Fatal)
        assert "ter2" not in str(mapped)
        assert "%-escapes" in str(mapped)
    missing = FileNotFoundError(2, "No such file or directory")
    assert str(map_connection_error(missing, "connect")).endswith("cannot be read: No such file or directory")
