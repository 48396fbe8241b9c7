"""DuckDB on the platform's Delta tables, without a network beyond the object store's.

The `delta` and `httpfs` extensions come as Python packages of DuckDB's own version and are loaded from there: nothing
is downloaded, and nothing is written to the user's `~/.duckdb`. Needs the extra `cdc-shared[analytics]`.
"""

import importlib.resources
from datetime import datetime
from urllib.parse import urlsplit

import duckdb
from obstore.exceptions import BaseError

from cdc_shared.delta.time_travel import NoSuchMoment, version_as_of
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import map_store_error, open_store

EXTENSIONS = ("httpfs", "delta")


def connect(
    settings: ObjectStoreSettings, *, memory_mb: int | None = None, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory database that can `delta_scan` tables on S3 (as `settings` says) and on local paths.

    It takes `memory_mb` and `threads` at most; None is DuckDB's own choice: 80 % of the memory, every core.

    Times are shown in UTC; take rows with them out as Arrow (`to_arrow_table`), because `fetchall` turns them into
    Python objects with a package that is not ours. Not thread-safe: take a `cursor()` per
    thread. Raises `Fatal` when an extension is not installed or the store's settings are refused.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if memory_mb is not None:
        config["memory_limit"] = f"{memory_mb}MiB"
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")
    for extension in EXTENSIONS:
        connection.execute(f"LOAD {literal(_extension_file(extension))}")
    if settings.access_key_id is not None:
        try:
            connection.execute(_secret_sql(settings))
        except duckdb.Error as error:
            # DuckDB's message repeats the statement, and with it the secret.
            raise Fatal(
                f"DuckDB refuses the object store's settings ({type(error).__name__}): "
                "check S3_ENDPOINT, AWS_REGION and the credentials"
            ) from None
    return connection


def delta_scan_sql(table_url: str, version: int | None = None) -> str:
    """The table as a SQL table function, for use after FROM; `version` reads it as it was then."""
    travel = "" if version is None else f", version = {int(version)}"
    return f"delta_scan({literal(table_url)}{travel})"


def as_of_sql(settings: ObjectStoreSettings, table_url: str, when: datetime) -> str:
    """The table as it was at a time in the source, for use after FROM: `delta_scan_sql` of `version_then`."""
    return delta_scan_sql(table_url, version_then(settings, table_url, when))


def version_then(settings: ObjectStoreSettings, table_url: str, when: datetime) -> int:
    """The version that shows a table as it was at a time in the source.

    Everything strictly before that version's watermark is in it, and the watermark is the newest that is not later than
    `when`, an aware datetime (`cdc_shared.delta.time_travel.version_as_of` tells both). Raises `NoSuchMoment` when the
    table does not go back so far or has no watermark, `Transient` or `Fatal` when the store does not answer.
    """
    try:
        version, _ = version_as_of(open_store(table_url, settings), int(when.timestamp() * 1000))
    except NoSuchMoment as error:
        raise NoSuchMoment(f"{table_url} as of {when.isoformat()}: {error}") from None
    except (BaseError, OSError) as error:
        raise map_store_error(error, f"reading the log of {table_url}") from error
    return version


def _secret_sql(settings: ObjectStoreSettings) -> str:
    options = {"REGION": settings.region, "KEY_ID": settings.access_key_id}
    if settings.secret_access_key is not None:
        options["SECRET"] = settings.secret_access_key.get_secret_value()
    if settings.session_token is not None:
        options["SESSION_TOKEN"] = settings.session_token.get_secret_value()
    if settings.endpoint is not None:
        options |= {"ENDPOINT": urlsplit(settings.endpoint).netloc, "URL_STYLE": "path"}
    listed = ", ".join(f"{name} {literal(value)}" for name, value in options.items() if value is not None)
    return f"CREATE SECRET object_store (TYPE s3, {listed}, USE_SSL {str(not settings.allow_http).lower()})"


def _extension_file(name: str) -> str:
    try:
        package = importlib.resources.files(f"duckdb_extension_{name}")
    except ModuleNotFoundError:
        raise Fatal(f"DuckDB's {name} extension is not installed: pip install 'cdc-shared[analytics]'") from None
    file = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not file.is_file():
        raise Fatal(
            f"DuckDB's {name} extension is not the one for DuckDB {duckdb.__version__}: "
            f"pip install duckdb-extension-{name}=={duckdb.__version__}"
        )
    return str(file)


def literal(text: str) -> str:
    """The text in SQL."""
    return "'" + text.replace("'", "''") + "'"
