"""Settings that would not work, or would give the password away, are refused by name."""

import pytest

from cdc_shared.settings import InvalidSettings, load_settings
from reconciliation.reporters.notification_settings import NotificationSettings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in NotificationSettings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_port_follows_from_the_security(security, port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_SECURITY", security)
    assert load_settings(NotificationSettings).port == port
    monkeypatch.setenv("SMTP_PORT", "2525")
    assert load_settings(NotificationSettings).port == 2525


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SMTP_PASSWORD": "hunter2-secret"}, "SMTP_PASSWORD"),
        ({"SMTP_USER": "ann"}, "set both or none"),
        ({"SMTP_PASSWORD": "env:P"}, "set both or none"),
        ({"SMTP_USER": "a", "SMTP_PASSWORD": "env:P", "SMTP_SECURITY": "none", "SMTP_HOST": "m.example"}, "in clear"),
        ({"SMTP_FROM": "nobody"}, "SMTP_FROM"),
        ({"RECONCILIATION_WEBHOOK_SECRET": "hunter2-secret"}, "RECONCILIATION_WEBHOOK_SECRET"),
        ({"RECONCILIATION_LINK_URL": "cdc.example.com"}, "RECONCILIATION_LINK_URL"),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(variables, says, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=says) as caught:
        load_settings(NotificationSettings)
    assert "hunter2" not in str(caught.value)


def test_a_relay_of_this_machine_may_be_signed_in_to_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SMTP_HOST": "localhost",
        "SMTP_USER": "a",
        "SMTP_PASSWORD": "env:P",
        "SMTP_SECURITY": "none",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings(NotificationSettings).smtp_user == "a"
