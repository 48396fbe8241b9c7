"""One JSON line an event, whoever logs it, and no secret in it."""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from cdc_shared.errors import Transient
from cdc_shared.logging.structured_logger import configure_logging, get_logger

pytestmark = pytest.mark.unit

VALUE = "jane.doe@corp"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers, root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers, root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_json_line_with_utc_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    get_logger("delta_writer.pipeline").info("batch\ncommitted", pipeline="shop", rows=3)
    (line,) = lines(capsys)
    assert list(line)[:5] == ["timestamp", "level", "service", "logger", "event"]
    assert (line["level"], line["service"], line["logger"]) == ("info", "writer", "delta_writer.pipeline")
    assert (line["event"], line["pipeline"], line["rows"]) == ("batch\ncommitted", "shop", 3)
    timestamp = str(line["timestamp"])
    assert timestamp.endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()) < 60


def test_standard_library_loggers_take_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    logging.getLogger("some.library").warning("retry %d of %s", 2, "mongodb://u:pw@h", extra={"token": "t", "n": 1})
    (line,) = lines(capsys)
    assert line["event"] == "retry 2 of mongodb://u:***@h"
    assert (line["logger"], line["level"], line["token"], line["n"]) == ("some.library", "warning", "***", 1)


def test_exceptions_are_logged_without_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    uri = "mongodb://admin:" + "hunter2" + "@db"
    try:
        raise ConnectionError(f"no server at {uri}")
    except ConnectionError:
        get_logger("x").exception("connect failed", connection=uri)
    (line,) = lines(capsys)
    assert "ConnectionError: no server at mongodb://admin:***@db" in str(line["exception"])
    assert line["connection"] == "mongodb://admin:***@db"
    assert "hunter2" not in json.dumps(line)


def fail_over(value: str) -> None:
    """Errors as they come out of a library: one quotes a value, others follow from it."""
    try:
        try:
            int(value)
        except ValueError as error:
            raise ExceptionGroup(value, [KeyError(value)]) from error
    except ExceptionGroup:
        raise Transient("the store is away")  # noqa: B904 # the context is what is tested


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("standard", [False, True])
def test_tracebacks_hold_no_values_of_documents(capsys: pytest.CaptureFixture[str], fmt: Any, standard: bool) -> None:
    configure_logging("writer", "INFO", fmt)
    log = logging.getLogger("some.library") if standard else get_logger("x")
    try:
        fail_over(VALUE)
    except Transient:
        log.exception("batch failed")
    err = capsys.readouterr().err
    assert VALUE not in err
    for told in ("in fail_over", "int(value)", "ValueError: (its message", "KeyError: (its message", "store is away"):
        assert told in err
    assert err.index("ValueError") < err.index("Transient"), "the oldest first"


def test_with_the_level_debug_tracebacks_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "DEBUG")
    try:
        fail_over(VALUE)
    except Transient:
        get_logger("x").exception("batch failed")
    (line,) = lines(capsys)
    assert f"invalid literal for int() with base 10: '{VALUE}'" in str(line["exception"])


def test_an_error_that_came_from_itself_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    first, second = OSError("first"), OSError("second")
    first.__cause__, second.__cause__ = second, first
    try:
        raise first
    except OSError:
        get_logger("x").exception("round")
    (line,) = lines(capsys)
    assert str(line["exception"]).count("OSError: first") == 1


def test_uncaught_exceptions_are_logged_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    uri = "mongodb://admin:" + "hunter2" + "@db"

    def fail() -> None:
        raise OSError(f"bad {uri}")

    thread = threading.Thread(target=fail, name="consumer")
    thread.start()
    thread.join()
    try:
        fail()
    except OSError:
        sys.excepthook(*sys.exc_info())
    first, second = lines(capsys)
    assert (first["level"], first["thread"]) == ("critical", "consumer")
    assert "bad mongodb://admin:***@db" in str(first["exception"])
    assert "bad mongodb://admin:***@db" in str(second["exception"])
    assert "hunter2" not in json.dumps([first, second])


def test_warnings_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old option", stacklevel=1)
    (line,) = lines(capsys)
    assert "old option" in str(line["event"])


def test_the_level_holds_for_both_kinds_of_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "warning")
    get_logger("x").info("hidden")
    logging.getLogger("y").info("hidden")
    get_logger("x").warning("shown")
    assert [line["event"] for line in lines(capsys)] == ["shown"]


def test_configuring_again_replaces_and_does_not_double(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger("made before")
    configure_logging("one", "ERROR")
    log.error("first")
    configure_logging("two", "INFO")
    log.info("second")
    assert [(line["service"], line["event"]) for line in lines(capsys)] == [("one", "first"), ("two", "second")]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="VERBOSE"):
        configure_logging("writer", "VERBOSE")


def test_bound_context_and_trace_ids_are_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    structlog.contextvars.bind_contextvars(pipeline="shop")
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("commit") as span:
        get_logger("x").info("inside")
    get_logger("x").info("outside")
    inside, outside = lines(capsys)
    assert inside["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert inside["pipeline"] == outside["pipeline"] == "shop"
    assert "trace_id" not in outside


def test_values_that_json_cannot_hold_do_not_lose_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO")
    get_logger("x").info("odd", raw=b"\xff\x00", when=datetime(2026, 1, 2, tzinfo=UTC), items={1, 2})
    (line,) = lines(capsys)
    assert (line["raw"], line["items"]) == ("\\xff\x00", [1, 2])
    assert line["when"] == "2026-01-02 00:00:00+00:00"


def test_console_format_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("writer", "INFO", "console")
    get_logger("x").info("hello", uri="mongodb://u:pw@h")
    err = capsys.readouterr().err
    assert "hello" in err
    assert "u:***@h" in err
    assert not err.startswith("{")
