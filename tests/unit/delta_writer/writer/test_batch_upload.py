"""The data file of a batch whose commit takes several attempts."""

import obstore
import pytest
from obstore.store import MemoryStore

from delta_writer.writer.batch_upload import MAX_UPLOAD_AGE_S, BatchUpload

pytestmark = pytest.mark.unit


def paths(store):
    return {item["path"] for page in obstore.list(store) for item in page}


def test_a_file_serves_all_attempts_until_vacuum_may_have_taken_it(new_table):
    """Attacks I10: the commit was refused for hours; what is committed then was uploaded lately."""
    table, store, now = new_table(), MemoryStore(), 1_700_000_000.0
    upload = BatchUpload(store, lambda: now)
    batch = table.encode(table.open(), table.batch([(1, {"n": 1})]))
    first = upload.of(batch, "0", 7)
    now += MAX_UPLOAD_AGE_S - 1
    assert upload.of(batch, "0", 7) is first
    now += 2
    second = upload.of(batch, "0", 7)
    assert paths(store) == {first.path, second.path}
    assert first.path != second.path
    assert upload.of(batch, "0", 7) is second
    assert upload.of(batch, "4", 7).path != second.path, "its rows are of another era"
