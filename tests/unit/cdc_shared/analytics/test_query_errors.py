"""A failed query names what is missing; the texts of DuckDB and its Delta extension are as those print them."""

import duckdb
import pytest

from cdc_shared.analytics.query_errors import NAMES_SHOWN, NoSuchTable, NoSuchVersion, explained
from cdc_shared.analytics.table_catalog import LakeTable
from cdc_shared.errors import Transient

pytestmark = pytest.mark.unit

SQL = "SELECT count(*) FROM delta_scan('s3://cdc/delta/shop/shop/nothing')"
NOT_THERE = 'Catalog Error: Table with name order does not exist!\nDid you mean "orders"?'


def none(_: str) -> range:
    return range(0)


def no_tables() -> list[LakeTable]:
    return []


@pytest.mark.parametrize(
    "text",
    [
        "IO Error: DeltaKernel GenericError (5): Generic delta kernel error: No files in log segment",
        "IO Error: DeltaKernel ObjectStoreError (8): Error interacting with object store: Generic S3 error: Error "
        "performing list request: 404 Not Found: <?xml?>\n<Error><Code>NoSuchBucket</Code></Error>",
    ],
)
def test_a_table_that_is_not_there_is_named(text: str) -> None:
    error = explained(duckdb.IOException(text), SQL, no_tables, none)

    assert isinstance(error, NoSuchTable)
    assert str(error).startswith("no Delta table at s3://cdc/delta/shop/shop/nothing: ")
    assert "\n" not in str(error)


def test_of_two_tables_both_are_named_once() -> None:
    sql = "SELECT * FROM delta_scan('s3://a/b') JOIN DELTA_SCAN( 's3://a/c') USING (id) JOIN delta_scan('s3://a/b')"

    error = explained(duckdb.IOException("No files in log segment"), sql, no_tables, none)

    assert "at s3://a/b or s3://a/c:" in str(error)


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    tables = [LakeTable("shop", "shop", f"c{number:03}", "") for number in range(NAMES_SHOWN + 1002)]

    error = explained(duckdb.CatalogException(NOT_THERE), "FROM shop.shop.order", lambda: tables, none)

    assert isinstance(error, NoSuchTable)
    assert str(error).startswith("there is no such table (Catalog Error: Table with name order does not exist!). ")
    assert "There are: shop.shop.c000, shop.shop.c001, " in str(error)
    assert str(error).endswith("shop.shop.c019 and 1,002 more")


def test_when_the_store_cannot_say_which_there_are_that_is_said() -> None:
    def away() -> list[LakeTable]:
        raise Transient("the store is away")

    error = explained(duckdb.CatalogException(NOT_THERE), "FROM shop.shop.order", away, none)

    assert str(error).endswith("Which tables there are cannot be told: the store is away")


def test_a_store_that_does_not_answer_is_said_to() -> None:
    text = "IO Error: DeltaKernel ObjectStoreError (8): after 10 retries - HTTP error: error sending request"

    error = explained(duckdb.IOException(text), SQL, no_tables, none)

    assert isinstance(error, Transient)
    assert str(error).startswith("the object store does not answer: ")


def test_a_file_that_is_gone_may_be_asked_for_again() -> None:
    text = "HTTP Error: Unable to connect to URL http://s3/cdc/part-1.parquet: 404 (Not Found). 404 Not Found"

    assert isinstance(explained(duckdb.HTTPException(text), "FROM shop.shop.orders", no_tables, none), Transient)


def test_a_mistake_in_the_statement_stays_as_duckdb_says_it() -> None:
    error = duckdb.BinderException('Binder Error: Referenced column "nope" not found in FROM clause!')

    assert explained(error, SQL, no_tables, none) is error


@pytest.mark.parametrize(
    ("version", "text", "says"),
    [
        (1, "Generic delta kernel error: No files in log segment", "version 1 of s3://a/b is not there any more: "),
        (99, "LogSegment end version 9 not the same as the specified end version 99", "version 99 of s3://a/b is not"),
    ],
)
def test_a_version_that_is_gone_is_told_with_those_that_can_be_read(version: int, text: str, says: str) -> None:
    sql = f"SELECT * FROM delta_scan('s3://a/b', version = {version})"

    error = explained(duckdb.IOException(text), sql, no_tables, lambda table: range(4, 10))

    assert isinstance(error, NoSuchVersion)
    assert str(error).startswith(says)
    assert str(error).endswith(": versions 4 to 9 can be read")
    unknown = explained(duckdb.IOException("No files in log segment"), sql, no_tables, none)
    assert str(unknown).startswith("no Delta table at s3://a/b")
