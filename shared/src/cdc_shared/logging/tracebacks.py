"""An error's traceback as text for the log, without messages that may hold values of documents."""

import traceback
from typing import Final

from structlog.typing import ExcInfo

from cdc_shared.errors import may_be_shown

_HIDDEN: Final = "(its message may hold values of documents; LOG_LEVEL=DEBUG shows it)"
_CAUSED: Final = "\n\nThe above led to this one:\n\n"


def safe_traceback(exc_info: ExcInfo) -> str:
    """Return what Python prints of an error and of those that it came from, the oldest first.

    In the place of a message stands why it is missing, unless `errors.may_be_shown`.
    """
    return _CAUSED.join(reversed(_with_causes(exc_info[1])))


def full_traceback(exc_info: ExcInfo) -> str:
    """Return what Python prints."""
    return "".join(traceback.format_exception(*exc_info)).rstrip("\n")


def _with_causes(error: BaseException) -> list[str]:
    """The newest first. An error may be its own cause's cause."""
    texts: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        texts.append(_alone(at))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return texts


def _alone(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    lines = ["Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__)]
    lines.append(f"{name}: {error if may_be_shown(error) else _HIDDEN}")
    if isinstance(error, BaseExceptionGroup):
        lines += [f"\n\nOne of its group:\n\n{_CAUSED.join(reversed(_with_causes(each)))}" for each in error.exceptions]
    return "".join(lines)
