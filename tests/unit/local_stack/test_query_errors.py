"""`make query` names what is missing; the texts of DuckDB and its Delta extension are as those print them."""

import duckdb
import pytest

from local_stack.query_errors import explain

pytestmark = pytest.mark.unit

SQL = "SELECT count(*) FROM delta_scan('s3://cdc/delta/shop/shop/nothing')"


def none(_: str) -> range:
    return range(0)


@pytest.mark.parametrize(
    "text",
    [
        "IO Error: DeltaKernel GenericError (5): Generic delta kernel error: No files in log segment",
        "IO Error: DeltaKernel ObjectStoreError (8): Error interacting with object store: Generic S3 error: Error "
        "performing list request: 404 Not Found: <?xml?>\n<Error><Code>NoSuchBucket</Code></Error>",
    ],
)
def test_a_table_that_is_not_there_is_named(text: str) -> None:
    message = explain(duckdb.IOException(text), SQL, none)

    assert message.startswith("no Delta table at s3://cdc/delta/shop/shop/nothing: ")
    assert "make status" in message
    assert "\n" not in message


def test_of_two_tables_both_are_named_once() -> None:
    sql = "SELECT * FROM delta_scan('s3://a/b') JOIN DELTA_SCAN( 's3://a/c') USING (id) JOIN delta_scan('s3://a/b')"

    assert "at s3://a/b or s3://a/c:" in explain(duckdb.IOException("No files in log segment"), sql, none)


def test_a_store_that_does_not_answer_is_said_to() -> None:
    text = "IO Error: DeltaKernel ObjectStoreError (8): after 10 retries - HTTP error: error sending request"

    assert explain(duckdb.IOException(text), SQL, none) == "the object store does not answer: see `make status`"


def test_a_mistake_in_the_statement_stays_as_duckdb_says_it() -> None:
    text = 'Binder Error: Referenced column "nope" not found in FROM clause!'

    assert explain(duckdb.BinderException(text), SQL, none) == text


@pytest.mark.parametrize(
    ("version", "text", "says"),
    [
        (1, "Generic delta kernel error: No files in log segment", "version 1 of s3://a/b is not there any more: "),
        (99, "LogSegment end version 9 not the same as the specified end version 99", "version 99 of s3://a/b is not"),
    ],
)
def test_a_version_that_is_gone_is_told_with_those_that_can_be_read(version: int, text: str, says: str) -> None:
    sql = f"SELECT * FROM delta_scan('s3://a/b', version = {version})"

    message = explain(duckdb.IOException(text), sql, lambda table: range(4, 10))

    assert message.startswith(says)
    assert message.endswith(": versions 4 to 9 can be read")
    assert explain(duckdb.IOException("No files in log segment"), sql, none).startswith("no Delta table at s3://a/b")
