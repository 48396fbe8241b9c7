"""`.env.example` documents every setting, with the default that really applies."""

import re
from pathlib import Path

import pytest

from cdc_shared.settings import load_settings as load_environment
from control_plane.settings import ApiSettings
from local_stack.ports import PORTS
from local_stack.settings import StackSettings, load_settings

pytestmark = pytest.mark.unit

EXAMPLE = (Path(__file__).parents[3] / ".env.example").read_text()
DOCUMENTED = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", EXAMPLE, flags=re.MULTILINE))
OF_THE_API = {name: value for name, value in DOCUMENTED.items() if name.startswith("API_") and name != "API_PORT"}


def test_every_port_is_documented_with_its_default() -> None:
    assert {spec.variable: str(spec.default) for spec in PORTS}.items() <= DOCUMENTED.items()


def test_the_example_as_it_stands_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(EXAMPLE)

    assert load_settings(tmp_path, {}, {}) == StackSettings()


def test_the_documented_values_are_the_defaults(tmp_path: Path) -> None:
    values = {name: value for name, value in DOCUMENTED.items() if name != "MONGODB_URI" and name not in OF_THE_API}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    settings = load_settings(tmp_path, {}, {})

    assert settings == StackSettings(ports={spec.variable: spec.default for spec in PORTS})


def test_the_documented_values_of_the_api_are_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://localhost/cdc")
    defaults = load_environment(ApiSettings)

    assert len(OF_THE_API) >= 5
    for name, value in OF_THE_API.items():
        monkeypatch.setenv(name, value)
    assert load_environment(ApiSettings) == defaults
