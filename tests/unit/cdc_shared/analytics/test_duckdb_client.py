"""DuckDB reads our tables offline, and never shows the store's secret."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pydantic import SecretStr

from cdc_shared.analytics import duckdb_client
from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings

pytestmark = pytest.mark.unit

LOCAL = ObjectStoreSettings(
    endpoint="http://127.0.0.1:1",
    access_key_id="reader",
    secret_access_key=SecretStr("it's secret"),
    region="eu-north-1",
)


def test_a_table_is_read_and_read_as_it_was(tmp_path: Path) -> None:
    table = str(tmp_path / "it's a table")
    write_deltalake(table, pa.table({"n": [1, 2]}))
    write_deltalake(table, pa.table({"n": [3]}), mode="append")

    connection = connect(LOCAL)

    assert connection.sql(f"SELECT sum(n) FROM {delta_scan_sql(table)}").fetchall() == [(6,)]
    assert connection.sql(f"SELECT sum(n) FROM {delta_scan_sql(table, version=0)}").fetchall() == [(3,)]


def test_the_store_is_reached_as_the_settings_say() -> None:
    [(secret,)] = connect(LOCAL).sql("SELECT secret_string FROM duckdb_secrets()").fetchall()

    assert "key_id=reader" in secret
    assert "endpoint=127.0.0.1:1" in secret
    assert "url_style=path" in secret
    assert "use_ssl=0" in secret or "use_ssl=false" in secret
    assert "region=eu-north-1" in secret
    assert "it's secret" not in secret


def test_an_https_store_is_never_reached_without_tls() -> None:
    settings = LOCAL.model_copy(update={"endpoint": "https://store.example"})

    [(secret,)] = connect(settings).sql("SELECT secret_string FROM duckdb_secrets()").fetchall()

    assert "use_ssl=1" in secret or "use_ssl=true" in secret


def test_without_keys_there_is_no_secret_and_local_tables_can_be_read(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "t"), pa.table({"n": [1]}))

    connection = connect(ObjectStoreSettings(access_key_id=None, secret_access_key=None, endpoint=None))

    assert connection.sql("SELECT * FROM duckdb_secrets()").fetchall() == []
    assert connection.sql(f"SELECT n FROM {delta_scan_sql(str(tmp_path / 't'))}").fetchall() == [(1,)]


def test_times_are_shown_in_utc() -> None:
    assert connect(LOCAL).sql("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_a_refused_setting_is_reported_without_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_client, "_secret_sql", lambda _: "CREATE SECRET s (TYPE s3, NONSENSE 'it''s secret')")

    with pytest.raises(Fatal, match="AWS_REGION") as caught:
        connect(LOCAL)

    assert "secret" not in str(caught.value).replace("secrets", "")
    assert caught.value.__cause__ is None


def test_an_extension_of_another_duckdb_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb, "__version__", "0.0.1")

    with pytest.raises(Fatal, match=r"duckdb-extension-httpfs==0\.0\.1"):
        connect(LOCAL)
