"""Structured logging: one JSON line an event on stderr, UTC times, secrets redacted, standard-library loggers included.

    configure_logging("delta-writer", settings.level, settings.format)   # once, when the process starts
    log = get_logger(__name__)
    log.info("batch committed", pipeline="shop", rows=1200)

Every line has `timestamp`, `level`, `service`, `logger` and `event`; `exception` when one was logged (`tracebacks` says
what of it), `trace_id` and `span_id` inside a span. Context that a task binds with
`structlog.contextvars.bind_contextvars` is on each of its lines.
"""

import json
import logging
import sys
import threading
from types import TracebackType
from typing import Any, Literal

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from cdc_shared.logging.redaction import redact_value
from cdc_shared.logging.tracebacks import full_traceback, safe_traceback

LogFormat = Literal["json", "console"]

_LEADING_KEYS = ("timestamp", "level", "service", "logger", "event")


def configure_logging(service: str, level: str = "INFO", fmt: LogFormat = "json") -> None:
    """Set up logging for the whole process; calling it again replaces the earlier set-up.

    `level` is a standard level name; ValueError for another. Warnings and uncaught exceptions of any thread are logged
    too, so that no traceback reaches stderr unredacted. Messages of errors that may hold values of documents are logged
    with the level DEBUG alone.
    """
    numeric_level = logging.getLevelNamesMapping().get(level.upper())
    if numeric_level is None:
        raise ValueError(f"no log level {level!r}: use DEBUG, INFO, WARNING, ERROR or CRITICAL")

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        _add_trace_ids,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # so that a later call to configure_logging reaches loggers already made
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.ExceptionRenderer(
                    full_traceback if numeric_level <= logging.DEBUG else safe_traceback
                ),
                _redact,  # after the traceback has become text: exceptions quote connection strings
                _renderer(fmt),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(numeric_level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger named `name` (use `__name__`). May be made before `configure_logging` is called."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _renderer(fmt: LogFormat) -> Processor:
    if fmt == "console":
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer(serializer=json.dumps, default=str)


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    leading = {key: redact_value(event.pop(key)) for key in _LEADING_KEYS if key in event}
    return leading | {key: redact_value(value, key) for key, value in event.items()}


def _add_trace_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    get_logger("uncaught").critical("uncaught exception", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(args: Any) -> None:
    if args.exc_type is SystemExit:
        return
    get_logger("uncaught").critical(
        "uncaught exception in thread",
        thread=args.thread.name if args.thread else None,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
