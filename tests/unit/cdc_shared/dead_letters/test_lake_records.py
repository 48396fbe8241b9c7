"""Large letters in the lake, here a local directory: put, found, deleted, expired; and nothing else is touched."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from letters import letter

from cdc_shared.dead_letters.lake_records import (
    ContentGone,
    delete_from_lake,
    expire_in_lake,
    get_from_lake,
    lake_directory,
    put_in_lake,
)
from cdc_shared.settings import ObjectStoreSettings

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings()


def put(root: Path, offset: int, content: bytes = b"sealed") -> str:
    return put_in_lake(str(root), "p", letter(offset).place, content, STORES)


def test_what_was_put_is_found_where_the_letter_says(tmp_path: Path) -> None:
    url = put(tmp_path, 7)
    assert url == f"{tmp_path}/p/_dead_letters/p.db.things/0/7"
    put(tmp_path, 7, b"again")
    assert get_from_lake(letter(lake_url=url), STORES) == b"again"
    delete_from_lake(letter(lake_url=url), STORES)
    delete_from_lake(letter(lake_url=url), STORES)
    with pytest.raises(ContentGone, match="gone; it can only be discarded"):
        get_from_lake(letter(lake_url=url), STORES)


def test_a_letter_reaches_no_other_object(tmp_path: Path) -> None:
    """Whoever can write to the topic must not be able to have tables deleted."""
    table = tmp_path / "p" / "db" / "things" / "0" / "7"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"data")
    other = put(tmp_path, 8)
    for url in (str(table), other, f"{tmp_path}/q/_dead_letters/p.db.things/0/7", "", "/"):
        for act in (get_from_lake, delete_from_lake):
            with pytest.raises(ContentGone, match="no letter's content"):
                act(letter(lake_url=url), STORES)
    assert table.exists()
    assert get_from_lake(letter(8, lake_url=other), STORES) == b"sealed"


def test_what_is_older_than_letters_are_kept_goes(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    table = tmp_path / "p" / "db" / "data"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"data")
    directory, month = lake_directory(str(tmp_path), "p"), timedelta(days=30)
    assert expire_in_lake(directory, STORES, month) == 0
    assert expire_in_lake(directory, STORES, month, lambda: datetime.now(UTC) + timedelta(days=31)) == 2
    assert not [each for each in Path(directory).rglob("*") if each.is_file()]
    assert table.exists()
