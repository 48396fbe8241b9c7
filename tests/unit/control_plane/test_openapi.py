"""The description of the API: up to date in docs/api, complete, with examples that fit, and it shows no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator
from typer.testing import CliRunner

from control_plane.command_line import app
from control_plane.openapi import openapi_yaml

pytestmark = pytest.mark.unit

WRITTEN = Path(__file__).parents[3] / "docs" / "api" / "openapi.yaml"
TEXT = openapi_yaml()
DOCUMENT: dict[str, Any] = yaml.load(TEXT, Loader=yaml.CSafeLoader)
METHODS = {"get", "put", "post", "patch", "delete"}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield f"{method.upper()} {path}", operation


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]] if reference else schema


def bodies() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(operation, which body, media object) of every JSON or form that is sent, and every JSON that is answered."""
    for name, operation in operations():
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            yield name, f"request {kind}", media
        for status, response in operation["responses"].items():
            for kind, media in response.get("content", {}).items():
                if "json" in kind and kind != "application/jsonl":
                    yield name, f"{status} {kind}", media


def examples(media: dict[str, Any]) -> list[Any]:
    found = [media["example"]] if "example" in media else []
    found += [each["value"] for each in media.get("examples", {}).values()]
    schema = media["schema"]
    found += schema.get("examples", [])
    for each in (schema, *schema.get("anyOf", [])):
        found += resolved(each).get("examples", [])
    if not found and schema.get("type") == "array":
        found = [[each] for each in resolved(schema["items"]).get("examples", [])]
    return found


def test_the_written_description_is_what_the_api_is() -> None:
    assert WRITTEN.exists(), "run `make openapi`"
    assert WRITTEN.read_text(encoding="utf-8") == TEXT, "the API has changed: run `make openapi` and commit"


def test_what_the_environment_holds_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"POSTGRES_DSN": "postgresql://u:hunter2@db/cdc", "API_PORT": "nonsense"}.items():
        monkeypatch.setenv(name, value)

    assert openapi_yaml() == TEXT


def test_every_operation_is_named_once_and_described() -> None:
    names = [operation["operationId"] for _, operation in operations()]

    assert len(names) > 40
    assert len(names) == len(set(names))
    assert [name for name, operation in operations() if not operation.get("description")] == []


def test_every_operation_says_how_it_refuses() -> None:
    for name, operation in operations():
        refusals = {"422", "429", "default"} | ({"401", "403"} if "security" in operation else set())
        for status in refusals:
            media = operation["responses"][status]["content"]
            assert media["application/problem+json"]["schema"]["$ref"].endswith("/Problem"), name


def test_what_needs_a_permission_says_which_and_only_what_is_public_needs_no_sign_in() -> None:
    public = {name for name, operation in operations() if "security" not in operation}

    assert public == {
        "POST /api/v1/auth/token",
        "POST /api/v1/auth/refresh",
        "GET /health",
        "GET /ready",
        "GET /metrics",
    }
    for name, operation in operations():
        assert name in public or "Permission: `" in operation["description"] or "/auth/" in name, name


def test_every_body_has_an_example() -> None:
    assert [(name, which) for name, which, media in bodies() if not examples(media)] == []


def test_every_example_fits_its_schema() -> None:
    wrong = []
    for name, which, media in bodies():
        validator = Draft202012Validator({**media["schema"], "components": DOCUMENT["components"]})
        for example in examples(media):
            wrong += [(name, which, error.instance_path, error.message) for error in validator.iter_errors(example)]
    assert wrong == []


def test_the_command_tells_whether_a_file_is_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "api" / "openapi.yaml"
    run = CliRunner()

    assert run.invoke(app, ["openapi", "--check", str(path)]).exit_code == 1
    assert run.invoke(app, ["openapi", "--output", str(path)]).exit_code == 0
    assert run.invoke(app, ["openapi", "--check", str(path)]).exit_code == 0
    path.write_text(path.read_text() + "\n")
    stale = run.invoke(app, ["openapi", "--check", str(path)])
    assert stale.exit_code == 1
    assert "make openapi" in stale.output
