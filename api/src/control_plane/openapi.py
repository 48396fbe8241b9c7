"""The API's description, OpenAPI 3.1: what FastAPI knows, and what it cannot: problems, signing in, permissions."""

from collections.abc import Iterator
from typing import Any, Final

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from cdc_shared.security.data_key import DataKeySettings
from cdc_shared.settings import (
    ConnectSettings,
    KafkaSettings,
    LoggingSettings,
    ObjectStoreSettings,
    SecretsSettings,
    TracingSettings,
)
from control_plane.main import create_app
from control_plane.openapi_examples import add_examples
from control_plane.permissions import Permission
from control_plane.problems import MEDIA_TYPE
from control_plane.routes import GuardedRoute
from control_plane.settings import ApiSettings, QuerySettings, Settings

DESCRIPTION: Final = """\
Pipelines from MongoDB to Delta Lake: made, run and watched; users, roles, and who did what.

Sign in with `POST /api/v1/auth/token` and send the access token as `Authorization: Bearer …`; machines send a service
token the same way. Errors are problems (RFC 9457) with a stable `code`. Lists come in pages: give `next` back as
`cursor`. What may change at two places at once has an `ETag`, which `If-Match` must repeat. A `POST` with an
`Idempotency-Key` may be sent again: it is done once.
"""
DOCUMENT_WIDTH: Final = 120
PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "of the status"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "description": "stable: programs compare it"},
        "detail": {"type": "string", "description": "for people: what is wrong, and what to do"},
        "request_id": {
            "type": ["string", "null"],
            "description": "finds the request in the log and in the audit trail",
        },
        "errors": {
            "type": "array",
            "description": "one for each field at fault",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "examples": [
        {
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "code": "invalid_transition",
            "detail": "a pipeline that is stopped cannot be paused; start it first",
            "request_id": "0b6f3c1e5d0f4a5e9f0c6d2b7a81e3d4",
        }
    ],
}
SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "password": {
        "type": "oauth2",
        "description": "People: a name and a password give a short-lived access token and a refresh token.",
        "flows": {"password": {"tokenUrl": "/api/v1/auth/token", "refreshUrl": "/api/v1/auth/refresh", "scopes": {}}},
    },
    "token": {"type": "http", "scheme": "bearer", "description": "An access token, or a machine's service token."},
}
_OF_EVERY_ROUTE: Final = {422: "A parameter or the body is not valid", 429: "Too many requests: see `Retry-After`"}
_OF_GUARDED_ROUTES: Final = {401: "Not signed in, or no longer", 403: "Not permitted"}
_OF_ROUTES_WITH_A_BODY: Final = {400: "The body cannot be read"}
_OF_ROUTES_OF_ONE_THING: Final = {404: "There is no such thing"}
_OF_CHANGES_OF_A_VERSION: Final = {
    412: "`If-Match` names another version than the one in force",
    428: "`If-Match` is missing",
}


def openapi_yaml() -> str:
    """The description as YAML, the same text every time. Needs no environment and opens nothing."""
    document = describe(create_app(_settings_for_describing()))
    return yaml.dump(document, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=DOCUMENT_WIDTH)


class _Readable(yaml.CSafeDumper):
    """Writes texts of several lines as they read, and everything where it stands, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 # PyYAML's name
        return True


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Readable.add_representer(str, _text)


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application made by `create_app`."""
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for theirs in ("HTTPValidationError", "ValidationError"):
        schemas.pop(theirs, None)
    schemas["Problem"] = PROBLEM
    add_examples(schemas)
    components["securitySchemes"] = SECURITY_SCHEMES
    for route, operation in _operations(app, document):
        _complete(route, operation)
    return document


def _operations(app: FastAPI, document: dict[str, Any]) -> Iterator[tuple[GuardedRoute, dict[str, Any]]]:
    for context in iter_route_contexts(app.routes):
        route, path = context.original_route, context.path_format
        if isinstance(route, GuardedRoute) and route.include_in_schema and path is not None:
            for method in context.methods or ():
                yield route, document["paths"][path][method.lower()]


def _complete(route: GuardedRoute, operation: dict[str, Any]) -> None:
    """Name it as the code does, and say who may call it and how it refuses."""
    operation["operationId"] = route.name
    problems = dict(_OF_EVERY_ROUTE)
    if not route.guard.is_public:
        problems |= _OF_GUARDED_ROUTES
        operation["security"] = [{"password": []}, {"token": []}]
        if route.guard.permission is not Permission.SELF:
            text = f"{operation.get('description', '')}\n\nPermission: `{route.guard.permission}`."
            operation["description"] = text.strip()
    if "requestBody" in operation:
        problems |= _OF_ROUTES_WITH_A_BODY
    parameters = operation.get("parameters", [])
    if any(each["in"] == "path" for each in parameters):
        problems |= _OF_ROUTES_OF_ONE_THING
    if any(each["name"].lower() == "if-match" for each in parameters):
        problems |= _OF_CHANGES_OF_A_VERSION
    responses = operation["responses"]
    declared = {int(each): responses.pop(each)["description"] for each in [*responses] if each >= "400"}
    declared.pop(422, None)  # FastAPI's own, whose schema is another
    for status, text in sorted((problems | declared).items()):
        responses[str(status)] = _problem(text)
    responses["default"] = _problem("Any other problem")


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def _settings_for_describing() -> Settings:
    """Settings that reach nothing, whatever the environment holds: the application is described, not started."""
    return Settings(
        ApiSettings.model_construct(postgres_dsn=SecretStr("")),
        KafkaSettings.model_construct(bootstrap_servers=""),
        ConnectSettings.model_construct(url=""),
        ObjectStoreSettings.model_construct(),
        SecretsSettings.model_construct(),
        DataKeySettings.model_construct(reference=""),
        LoggingSettings.model_construct(),
        TracingSettings.model_construct(),
        QuerySettings.model_construct(),
    )
