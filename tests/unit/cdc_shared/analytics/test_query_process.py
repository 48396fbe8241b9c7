"""A statement in a process of its own: its result is told whatever happens, by the type of the error."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from cdc_shared.analytics.bounded_answer import BoundedFormat
from cdc_shared.analytics.query_process import ANSWER, QueryRequest, QueryResult
from cdc_shared.storage.object_store import table_url

pytestmark = pytest.mark.unit

SECRET = "a-Secret-of-the-Store"
TIMEOUT_S = 60


@pytest.fixture
def request_of(tmp_path: Path) -> Any:
    root = tmp_path / "lake"
    write_deltalake(table_url(str(root), "shop", "db", "c"), pa.table({"n": [1, 2, 3]}))
    (tmp_path / "work").mkdir()

    def make(sql: str, **limits: Any) -> QueryRequest:
        stores = {"delta_root": str(root), "access_key_id": "id", "secret_access_key": SECRET}
        options = {"memory_mb": 256, "threads": 1, "timeout_s": 30.0, "max_rows": 10, "max_bytes": 10**6, "as_of": None}
        return QueryRequest(
            sql=sql,
            format=BoundedFormat.JSON,
            stores=stores,
            pipelines=None,
            directory=str(tmp_path / "work"),
            **options | limits,
        )

    return make


def run(sent: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cdc_shared.analytics.query_process"],
        input=sent,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def result_of(request: QueryRequest) -> QueryResult:
    ended = run(msgspec.msgpack.encode(request))
    assert SECRET.encode() not in ended.stdout + ended.stderr
    return msgspec.msgpack.decode(ended.stdout, type=QueryResult)


def test_the_answer_is_in_the_file_and_the_rest_in_the_result(request_of: Any, tmp_path: Path) -> None:
    result = result_of(request_of("SELECT n FROM shop.db.c ORDER BY n", max_rows=2))

    assert result == QueryResult(rows=2, truncated=True, tables={"shop.db.c": 0})
    assert json.loads((tmp_path / "work" / ANSWER).read_bytes())["rows"] == [[1], [2]]


@pytest.mark.parametrize(
    ("sql", "limits", "error", "message"),
    [
        ("FROM shop.db.d", {}, "NoSuchTable", "There are: shop.db.c"),
        ("FROM shop.db.c", {"as_of": 7}, "NoSuchVersion", "not there yet: versions 0 to 0"),
        ("SELECT write_blob('x', 'y'::BLOB)", {}, "NotReadOnly", "not allowed"),
        ("SELEKT 1", {}, "QueryFailed", "syntax error"),
        ("SELECT 'x'::INT", {}, "QueryFailed", "Could not convert"),
        ("SELECT count(*) FROM range(100_000_000_000) a WHERE hash(range) = 3", {"timeout_s": 0.5}, "QueryTimeout", ""),
        ("SELECT repeat('x', 100) FROM range(100_000)", {"max_rows": 10**6}, "QueryTooLarge", "more than 0 MiB"),
        ("SELECT list(repeat('x', 1000) || range) FROM range(2_000_000)", {}, "QueryTooLarge", "256 MB"),
        ("SELECT length(repeat('x', 4_000_000_000))", {"memory_mb": 128}, "QueryTooLarge", "128 MB"),
    ],
)
def test_errors_are_told_by_their_type(
    request_of: Any, sql: str, limits: dict[str, Any], error: str, message: str
) -> None:
    result = result_of(request_of(sql, **limits))

    assert (result.error, result.rows) == (error, 0), result.message
    assert message in result.message


def test_without_a_request_it_ends_quietly() -> None:
    ended = run(b"")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
