#!/usr/bin/env python3
"""Ask the writers of all pipelines, or of some, to optimize and vacuum their tables: now, or every week.

Writers look after their tables all the time; this is for what they leave alone because it pays late. They own the
tables, so this asks, and they do it. Run it again or twice at a time: what waits already is done once.

    scripts/maintenance/optimize-deltalake.py                          # Sundays at 3 o'clock UTC, until Ctrl-C
    scripts/maintenance/optimize-deltalake.py --cron "30 2 * * *" --time-zone Europe/Oslo --pipeline shop
    scripts/maintenance/optimize-deltalake.py --now --dry-run          # what it would gain
"""

import signal
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger

from cdc_shared.errors import CdcError, Fatal
from cdc_shared.kafka.spec_topic import read_specs
from cdc_shared.scheduling.cron import CronSchedule, InvalidCron
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings, load_settings
from delta_writer.maintenance.optimize_command import ask_to_optimize, follow

EVERY_SUNDAY = "0 3 * * 0"
MISSED_WITHIN_S = 24 * 3600
"""A time that was missed by less, because the machine slept or the last run took long, is made up for, once."""


class CronTimes(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """The instants of a crontab(5) expression, through changes of the clock."""

    def __init__(self, schedule: CronSchedule) -> None:
        self._schedule = schedule

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        return self._schedule.next_after(max(previous, now) if previous else now)


def optimize(pipelines: list[str], *, with_vacuum: bool, dry_run: bool, wait: bool) -> bool:
    """Ask each pipeline's writer; tell whether all could be asked."""
    kafka, stores = load_settings(KafkaSettings), load_settings(ObjectStoreSettings)
    specs = read_specs(kafka.bootstrap_servers, kafka.pipelines_topic)
    if unknown := sorted(set(pipelines) - specs.keys()):
        raise Fatal(f"no pipeline {', '.join(unknown)}; there are: {', '.join(sorted(specs)) or 'none'}")
    asked, whole = [], True
    for name, spec in sorted(specs.items()):
        if pipelines and name not in pipelines:
            continue
        try:
            asked += ask_to_optimize(stores, spec, None, _say, with_vacuum=with_vacuum, dry_run=dry_run)
        except CdcError as error:  # of one pipeline: the others are asked all the same
            whole = False
            _say(f"{name}: {error}")
    if wait:
        follow(asked, _say)
    return whole


def main(
    cron: Annotated[str, typer.Option(help="When, as in crontab(5).")] = EVERY_SUNDAY,
    time_zone: Annotated[str, typer.Option(help="Of --cron, for example Europe/Oslo.")] = "UTC",
    pipeline: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Once, now, instead of by the clock.")] = False,
    vacuum: Annotated[bool, typer.Option(help="Also delete what no retained version needs.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would gain.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for each run's end, and say what it has saved.")] = True,
) -> None:
    """Ask the writers to optimize and vacuum the tables of all pipelines, or of some: now, or by the clock."""
    try:
        if now:
            sys.exit(0 if optimize(pipeline or [], with_vacuum=vacuum, dry_run=dry_run, wait=wait) else 1)
        load_settings(KafkaSettings)  # what is missing is told now, not on Sunday
        load_settings(ObjectStoreSettings)
        schedule = CronSchedule(cron, time_zone)
    except (CdcError, InvalidCron) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    scheduler = BlockingScheduler(timezone=UTC)

    def run() -> None:
        try:
            optimize(pipeline or [], with_vacuum=vacuum, dry_run=dry_run, wait=wait)
        except CdcError as error:  # next time it may be better
            _say(f"not done: {error}")

    scheduler.add_job(run, CronTimes(schedule), coalesce=True, max_instances=1, misfire_grace_time=MISSED_WITHIN_S)

    def end(*_: Any) -> None:
        scheduler.shutdown(wait=False)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    _say(f"next at {schedule.next_after(datetime.now(UTC)).isoformat()}")
    scheduler.start()


def _say(line: str) -> None:
    typer.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")


if __name__ == "__main__":
    typer.run(main)
