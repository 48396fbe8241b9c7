"""A source that nobody asks resolves no secret and opens no connection."""

from __future__ import annotations

import pytest
from bson import Timestamp

from cdc_shared.errors import Fatal
from cdc_shared.models.common import SourceSpec
from cdc_shared.security.secret_provider import SecretNotFound
from cdc_shared.settings import SecretsSettings
from cdc_shared.source.mongodb_source import MongodbSource, operation_time_ms

pytestmark = pytest.mark.unit

NO_SECRETS = SecretsSettings(file=None, key_file=None, key=None)


def source(environ: dict[str, str], connection: str = "env:URI") -> MongodbSource:
    return MongodbSource(SourceSpec(connection=connection, database="d"), NO_SECRETS, environ)


def test_a_missing_secret_is_an_error_only_when_the_source_is_asked() -> None:
    unused = source({})
    unused.close()
    with pytest.raises(SecretNotFound, match="environment variable URI is not set"), unused.asking("read"):
        pytest.fail("asked without a connection string")


def test_no_secrets_file_is_an_error_only_when_the_source_is_asked() -> None:
    unused = source({}, "secret:mongodb")
    with pytest.raises(Fatal, match=r"secret:mongodb cannot be resolved.*CDC_SECRETS_FILE"), unused.asking("read"):
        pytest.fail("asked without a connection string")


def test_a_connection_string_that_is_none_is_fatal_and_is_not_shown() -> None:
    broken = source({"URI": "mongodb://bob:hun/ter2@host/"})
    with pytest.raises(Fatal, match=r"\(env:URI\).*%-escapes") as raised, broken.asking("read"):
        pytest.fail("asked with a broken connection string")
    assert "ter2" not in str(raised.value)


def test_a_corrected_secret_is_seen() -> None:
    environ = {"URI": "nonsense"}
    corrected = source(environ)
    with pytest.raises(Fatal), corrected.asking("read"):
        pass
    environ["URI"] = "mongodb://localhost:1/"
    assert corrected.database("d").name == "d"
    corrected.close()


def test_a_database_is_read_from_the_primary_whatever_the_connection_string_prefers() -> None:
    preferring = source({"URI": "mongodb://localhost:1/?readPreference=secondary&readConcernLevel=local&w=1"})
    database = preferring.database("d")
    assert database.read_preference.name == "Primary"
    assert database.read_concern.level == "majority"
    assert database.write_concern.document == {"w": "majority"}
    preferring.close()


class _Session:
    def __init__(self, operation_time: Timestamp | None) -> None:
        self.operation_time = operation_time


def test_the_operation_time_is_the_sources_clock_in_ms() -> None:
    assert operation_time_ms(_Session(Timestamp(1_700_000_000, 7))) == 1_700_000_000_000  # type: ignore[arg-type]
    with pytest.raises(Fatal, match="replica set"):
        operation_time_ms(_Session(None))  # type: ignore[arg-type]
