"""What goes wrong, told as `application/problem+json` (RFC 9457) with a code that programs may rely on.

No text repeats a value of the request: it may be a secret.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from cdc_shared.errors import CdcError, Fatal, Transient, shown
from cdc_shared.logging.redaction import redact_text
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PATTERN_REMEDIES, InvalidSpec
from cdc_shared.rules.rule_checks import InvalidRules

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5

_CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    401: "not_authenticated",
    403: "not_permitted",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "too_many_requests",
    503: "dependency_unavailable",
}
"""Of a status that comes without a code of its own."""

_DETAILS: Final[Mapping[int, str]] = {
    404: "there is nothing at this path: correct it; docs/api/openapi.yaml has them all",
    405: "this path does not take this method: the header Allow has those that it takes",
}
"""For what the framework answers by itself."""

log = get_logger(__name__)


class Problem(Exception):
    """An answer that is no success. `detail` says what is wrong and what to do, for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """`errors`: one for each field at fault. `members`: further members of the answer, as `state` of a conflict."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors
        self.members = dict(members or {})


def problem_of(error: BaseException) -> Problem:
    """The problem that an error is to whoever called."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid_request(error)
        case HTTPException():
            code = _CODES.get(error.status_code, HTTPStatus(error.status_code).name.lower())
            detail = _DETAILS.get(error.status_code, str(error.detail))
            return Problem(error.status_code, code, detail, headers=error.headers)
        case InvalidSpec() | InvalidRules():
            return Problem(422, "invalid_spec", redact_text(str(error)))
        case Transient():
            return _unavailable(redact_text(str(error)))
        case Fatal():
            return Problem(409, "refused", redact_text(str(error)))
        case CdcError():
            return Problem(422, "invalid_request", redact_text(str(error)))
        case asyncpg.DataError() | UnicodeEncodeError():
            return _unstorable()
        case asyncpg.InterfaceError() if isinstance(error, ValueError):  # the driver itself refuses to send a value
            return _unstorable()
        case asyncpg.PostgresConnectionError() | asyncpg.InterfaceError() | OSError() | TimeoutError():
            return _unavailable("something that this needs does not answer; see /ready, and try again")
        case (
            asyncpg.InsufficientResourcesError()
            | asyncpg.OperatorInterventionError()
            | asyncpg.ReadOnlySQLTransactionError()  # a server that has just become a standby
        ):
            return _unavailable("the database is overloaded or restarts; try again")
        case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError():
            return _unavailable("somebody else changed the same thing at the same moment; try again")
    return Problem(500, "internal_error", "something went wrong here; the log tells more under this request id")


def problem_response(request: Request, error: BaseException) -> JSONResponse:
    """The answer to a request that ended with this error."""
    problem = problem_of(error)
    state = request.scope.get("state", {})
    draft = state.get("audit")
    request_id = draft.request_id if draft else None
    if draft:
        draft.code = problem.code
    if problem.status >= 500:
        log.error("request failed", code=problem.code, request_id=request_id, reason=shown(error))
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.members,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    headers = problem.headers
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {**headers, "Allow": ", ".join(_methods_of(request))}
    return JSONResponse(body, problem.status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have the application answer with problems only; what no route expects is caught by the audit middleware."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return problem_response(request, error)

    for kind in (Problem, RequestValidationError, HTTPException, CdcError, asyncpg.PostgresError):
        app.add_exception_handler(kind, answer)


def _invalid_request(error: RequestValidationError) -> Problem:
    errors = [{"field": _field(each), "message": _message(each)} for each in error.errors()]
    return Problem(422, "invalid_request", "the request is not valid; see `errors`", errors=errors)


def _field(error: Mapping[str, Any]) -> str:
    place = error["loc"][:1] if error["type"] == "json_invalid" else error["loc"]
    return ".".join(map(str, place))


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"
    if error["type"] == "union_tag_invalid":
        return f"{error['ctx']['discriminator'].strip(chr(39))} must be one of {error['ctx']['expected_tags']}"
    if error["type"] == "string_pattern_mismatch" and (remedy := PATTERN_REMEDIES.get(error["ctx"]["pattern"])):
        return remedy
    if error["type"] == "extra_forbidden":
        return "is not a known field; correct its name, or remove it"
    return str(error["msg"]).removeprefix("Value error, ")


def _methods_of(request: Request) -> list[str]:
    """All methods of the path. Of routes that share a path, Starlette's own header names only those of the first.

    A path that a route spells out is that route's, though a route with a parameter in that place fits as well.
    """
    path = request.scope["path"]
    routes = list(iter_route_contexts(request.app.routes))
    exact = [each for each in routes if each.path == path]
    matching = exact or [each for each in routes if compile_path(each.path or "")[0].match(path)]
    return sorted({method for each in matching for method in each.methods or ()})


def _unstorable() -> Problem:
    return Problem(422, "invalid_request", "a text holds characters that cannot be stored, or a number is too large")


def _unavailable(detail: str) -> Problem:
    return Problem(503, "dependency_unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
