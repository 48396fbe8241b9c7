"""`.env.example` documents every setting, with the default that really applies."""

import re
from pathlib import Path

import pytest

from cdc_shared.settings import load_settings as load_environment
from control_plane.settings import ApiSettings
from local_stack.ports import PORTS
from local_stack.settings import StackSettings, load_settings
from reconciliation.reporters.notification_settings import NotificationSettings
from reconciliation.settings import ServiceSettings

pytestmark = pytest.mark.unit

EXAMPLE = (Path(__file__).parents[3] / ".env.example").read_text()
DOCUMENTED = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", EXAMPLE, flags=re.MULTILINE))
OF_THE_API = {name: value for name, value in DOCUMENTED.items() if name.startswith("API_") and name != "API_PORT"}
OF_RECONCILIATION = {
    name: value
    for name, value in DOCUMENTED.items()
    if name.startswith(("RECONCILIATION_", "SMTP_")) and name != "RECONCILIATION_HTTP_PORT"
}
OF_PARTS = {"MONGODB_URI", *OF_THE_API, *OF_RECONCILIATION}


def test_every_port_is_documented_with_its_default() -> None:
    assert {spec.variable: str(spec.default) for spec in PORTS}.items() <= DOCUMENTED.items()


def test_the_example_as_it_stands_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(EXAMPLE)

    assert load_settings(tmp_path, {}, {}) == StackSettings()


def test_the_documented_values_are_the_defaults(tmp_path: Path) -> None:
    values = {name: value for name, value in DOCUMENTED.items() if name not in OF_PARTS}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    settings = load_settings(tmp_path, {}, {})

    assert settings == StackSettings(ports={spec.variable: spec.default for spec in PORTS})


def test_the_documented_values_of_reconciliation_are_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://localhost/cdc")
    defaults = load_environment(ServiceSettings), load_environment(NotificationSettings)

    assert len(OF_RECONCILIATION) >= 5
    for name, value in OF_RECONCILIATION.items():
        monkeypatch.setenv(name, value)
    # The port of SMTP follows from its security where it is left out.
    service, notifications = load_environment(ServiceSettings), load_environment(NotificationSettings)
    assert (service, notifications.model_copy(update={"smtp_port": None})) == defaults
    assert notifications.port == defaults[1].port


def test_the_documented_values_of_the_api_are_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://localhost/cdc")
    defaults = load_environment(ApiSettings)

    assert len(OF_THE_API) >= 5
    for name, value in OF_THE_API.items():
        monkeypatch.setenv(name, value)
    assert load_environment(ApiSettings) == defaults
