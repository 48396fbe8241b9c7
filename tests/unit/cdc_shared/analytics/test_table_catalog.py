"""What a statement names is found among the tables, and each has a name that SQL takes."""

from pathlib import Path

import duckdb
import pytest

from cdc_shared.analytics.table_catalog import LakeTable, TableCatalog, quoted_name
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import name_of_segment, path_segment, table_url

pytestmark = pytest.mark.unit

LOCAL = ObjectStoreSettings(endpoint=None, access_key_id=None, secret_access_key=None)


def make_tables(root: Path, *names: tuple[str, str, str]) -> TableCatalog:
    for each in names:
        Path(table_url(str(root), *each)).mkdir(parents=True)
    return TableCatalog(LOCAL, str(root))


@pytest.mark.parametrize("name", ["orders", "a b", "é", ".hidden", "_x20_", "a_x", 'say "hi"', "100%", "x/y", "日本"])
def test_a_name_comes_back_from_its_directory(name: str) -> None:
    assert name_of_segment(path_segment(name)) == name


def test_every_table_is_listed_and_what_is_no_table_is_not(tmp_path: Path) -> None:
    catalog = make_tables(tmp_path, ("shop", "shop", "a.b c"), ("shop", "shop", "orders"), ("crm", "main", "people"))
    (tmp_path / "shop" / "_reconciliation" / "shop").mkdir(parents=True)
    (tmp_path / "shop" / "_dead_letters" / "x").mkdir(parents=True)

    assert [table.view for table in catalog.tables()] == ["crm.main.people", 'shop.shop."a.b c"', "shop.shop.orders"]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT * FROM shop.shop.orders", ["orders"]),
        ('SELECT * FROM "shop" . SHOP."Orders"', ["orders"]),
        ("FROM shop.shop.orders o JOIN shop.shop.orders__changes c USING (_id)", ["orders", "orders__changes"]),
        ("SELECT 1", []),
        ("SELECT * FROM shop.shop.order_lines", []),
        ("SELECT * FROM workshop.shop.orders", []),
        ('SELECT * FROM shop.shop."it""s.odd"', ['it"s.odd']),
    ],
)
def test_a_statement_finds_the_tables_that_it_names_and_no_other(tmp_path: Path, sql: str, named: list[str]) -> None:
    catalog = make_tables(tmp_path, *(("shop", "shop", name) for name in ("orders", "orders__changes", 'it"s.odd')))

    assert [table.name for table in catalog.tables(named_in=sql)] == sorted(named)


@pytest.mark.parametrize("name", ["orders", "order", "Select", "my-db", "9lives", "a.b", 'q"q', "été", "group", "_x"])
def test_sql_takes_a_name_as_it_is_quoted(name: str) -> None:
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE {quoted_name(name)} (n INT)")

    assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [(name,)]


def test_a_plain_name_needs_no_quotes() -> None:
    assert LakeTable("shop", "shop", "orders", "").view == "shop.shop.orders"
    assert LakeTable("shop", "my-db", "order", "").view == 'shop."my-db"."order"'
