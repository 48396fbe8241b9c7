"""Settings name what is missing and never show what is secret."""

import pytest
from pydantic import ValidationError

from cdc_shared.settings import (
    InvalidSettings,
    KafkaSettings,
    LoggingSettings,
    ObjectStoreSettings,
    SecretsSettings,
    TracingSettings,
    load_settings,
)

pytestmark = pytest.mark.unit

ALL_SETTINGS = (KafkaSettings, LoggingSettings, ObjectStoreSettings, SecretsSettings, TracingSettings)


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in ALL_SETTINGS:
        for field in settings.model_fields.values():
            monkeypatch.delenv(str(field.validation_alias), raising=False)


def test_a_missing_variable_is_named_with_how_to_set_it() -> None:
    with pytest.raises(InvalidSettings, match=r"KAFKA_BOOTSTRAP_SERVERS is not set.*localhost:9092"):
        load_settings(KafkaSettings)


@pytest.mark.parametrize("value", ["localhost", "a:1,,b:2", "a:1 b:2", "http//x"])
def test_malformed_brokers_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", value)
    with pytest.raises(InvalidSettings, match="KAFKA_BOOTSTRAP_SERVERS is not valid"):
        load_settings(KafkaSettings)


@pytest.mark.parametrize("value", ["localhost:9092", "a:1,b:2", "a:1, b:2", "[::1]:9092"])
def test_broker_lists_are_accepted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", value)
    assert load_settings(KafkaSettings).bootstrap_servers == value


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    assert load_settings(ObjectStoreSettings).region == "us-east-1"
    assert load_settings(TracingSettings).otlp_endpoint is None


def test_every_setting_has_a_variable_and_says_how_to_set_it() -> None:
    for settings in ALL_SETTINGS:
        for name, field in settings.model_fields.items():
            assert isinstance(field.validation_alias, str), name
            assert field.validation_alias.isupper(), name
            assert field.description, name


def test_settings_are_frozen() -> None:
    settings = load_settings(LoggingSettings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.level = "DEBUG"


def test_log_level_is_case_insensitive_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert load_settings(LoggingSettings).level == "DEBUG"
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(InvalidSettings, match="LOG_LEVEL is not valid"):
        load_settings(LoggingSettings)


def test_every_problem_is_reported_and_no_value_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "user:hunter2@store")
    monkeypatch.setenv("S3_METRICS_URL", "nowhere-hunter2")
    with pytest.raises(InvalidSettings) as caught:
        load_settings(ObjectStoreSettings)
    message = str(caught.value)
    assert "S3_ENDPOINT" in message
    assert "S3_METRICS_URL" in message
    assert "hunter2" not in message


def test_secrets_do_not_show_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("CDC_SECRETS_KEY", "hunter2")
    assert "hunter2" not in f"{load_settings(ObjectStoreSettings)!r} {load_settings(SecretsSettings)!s}"


def test_storage_options_for_an_http_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "http://localhost:8333/")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    assert load_settings(ObjectStoreSettings).storage_options() == {
        "AWS_ENDPOINT_URL": "http://localhost:8333",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_REGION": "us-east-1",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        "aws_conditional_put": "etag",
    }


def test_http_is_never_allowed_for_https_or_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "AWS_ALLOW_HTTP" not in load_settings(ObjectStoreSettings).storage_options()
    monkeypatch.setenv("S3_ENDPOINT", "https://s3.example.com")
    assert "AWS_ALLOW_HTTP" not in load_settings(ObjectStoreSettings).storage_options()


def test_the_pipelines_root_goes_before_delta_root(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match=r"DELTA_ROOT.*sink\.root"):
        load_settings(ObjectStoreSettings).root_for(None)
    monkeypatch.setenv("DELTA_ROOT", "s3://lake/delta")
    assert load_settings(ObjectStoreSettings).root_for(None) == "s3://lake/delta"
    assert load_settings(ObjectStoreSettings).root_for("/tables") == "/tables"
