"""Days of a table's life by an injected clock: yesterday is there, and what vacuum has taken is told in plain words."""

import math
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cdc_shared.analytics.lake import Lake
from cdc_shared.analytics.query_errors import NoSuchVersion
from cdc_shared.delta.oldest_version import PATH
from cdc_shared.delta.time_travel import NoSuchMoment
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.checkpointer import write_checkpoint
from delta_writer.maintenance.retention import DAY_S, Retention, deletable_log
from delta_writer.maintenance.vacuum import clean_up_log, vacuum

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings(endpoint=None, access_key_id=None, secret_access_key=None)
BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
HOURS = 24 * 7
RETENTION = Retention(3 * DAY_S, upload_grace_s=DAY_S)


class Clock:
    """The source's, the store's and the writer's."""

    def __init__(self) -> None:
        self.now = BEGAN

    def age(self, root: Path) -> None:
        """Whatever has come since the last call is of this moment."""
        at = self.now.timestamp()
        for path in root.rglob("*"):
            if path.is_file() and path.stat().st_mtime > at + HOURS * 3600:  # the real clock's
                os.utime(path, (at, at))


@pytest.fixture
def clock():
    return Clock()


def free_budget():
    return Budget(1.0, math.inf, threading.Event())


def commit_hour(table, writer, hour, clock):
    """Both documents change, and the watermark is that hour's beginning."""
    batch = table.batch([(0, {"n": hour}), (1, {"n": -hour})], must_commit=True)
    batch.watermarks = {0: int(clock.now.timestamp() * 1000)}
    table.commit(writer, batch)
    clock.age(Path(table.url))


def test_24_hours_ago_is_there_and_what_vacuum_took_is_told(new_table, clock):
    table = new_table()
    writer = table.open()
    for hour in range(HOURS):
        clock.now = BEGAN + timedelta(hours=hour)
        commit_hour(table, writer, hour, clock)
        if hour % 20 == 19:
            write_checkpoint(writer.location, writer.version, free_budget())
            clock.age(Path(table.url))
    pipeline, database, name = Path(table.url).parts[-3:]
    root = str(Path(table.url).parents[2])
    sql = f'SELECT max(n)::INT AS highest, min(n)::INT AS lowest FROM "{pipeline}"."{database}"."{name}"'

    def rows(as_of):
        with Lake(STORES, root) as lake:
            [row] = lake.query(sql, as_of).to_pylist()
            return row["highest"], row["lowest"]

    def at_hour(hour):
        return hour, -hour

    def hours_ago(hours):
        return clock.now - timedelta(hours=hours)

    assert rows(None) == at_hour(HOURS - 1)
    assert rows(hours_ago(24)) == at_hour(HOURS - 25)
    assert rows(hours_ago(24) + timedelta(minutes=59)) == at_hour(HOURS - 25)
    assert rows(HOURS - 25) == at_hour(HOURS - 25), "by its version"
    assert rows(hours_ago(24 * 6)) == at_hour(HOURS - 1 - 24 * 6)

    store = table.store
    assert deletable_log(store, RETENTION, clock.now.timestamp()) is None
    os.utime(Path(table.url) / PATH, (clock.now.timestamp(),) * 2)
    clock.now += timedelta(days=1)
    log = deletable_log(store, RETENTION, clock.now.timestamp())
    assert sum(vacuum(store, log, RETENTION, free_budget()).files.values()) > 24
    clean_up_log(store, log, free_budget())

    assert rows(hours_ago(24 + 24)) == at_hour(HOURS - 25)
    for gone in (hours_ago(24 + 24 * 3), hours_ago(24 + 24 * 5)):
        with pytest.raises(NoSuchMoment, match=r"cannot go back further than 2026-11-0.*vacuum has deleted what was"):
            rows(gone)
    with pytest.raises(NoSuchVersion, match=rf"version 3 of .* is not there any more: versions \d+ to {HOURS - 1} can"):
        rows(3)
