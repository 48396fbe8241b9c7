"""`scripts/query-deltalake.sh`: DuckDB on the tables, now or as they were, from the command line."""

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import duckdb
import pyarrow as pa
import typer
from pydantic import ValidationError
from rich.console import Console

from cdc_shared.analytics.answer_files import AnswerFormat, write_answer
from cdc_shared.analytics.lake import Lake, LakeLimits
from cdc_shared.errors import CdcError
from cdc_shared.settings import InvalidSettings, ObjectStoreSettings
from local_stack.endpoints import read_endpoints
from local_stack.errors import StackError
from local_stack.sample import SAMPLE_QUERY

ENDPOINTS = Path(__file__).resolve().parents[1] / ".local" / "endpoints.env"
EXIT_INTERRUPTED = 130
_FILES = re.compile(r"Scanning Files: (\d+)/(\d+)")
_FETCHED = re.compile(r"in: ([\d.]+ \w+)")

errors = Console(highlight=False, stderr=True, soft_wrap=True)


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def main(
    sql: Annotated[str | None, typer.Argument(help="Left out: the newest rows of the sample.")] = None,
    form: Annotated[
        Format | None, typer.Option("--format", "-f", help="By the output's name, else table. json: a row a line.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of the terminal.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="A time in the source (2026-11-17T09:00:00Z), or a version of the one table.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Run it, and show the plan and the files read.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="List the tables that can be asked about.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="Seconds, at most.")] = None,
    memory_mb: Annotated[int | None, typer.Option(min=64, help="Of DuckDB, at most.")] = None,
    root: Annotated[str | None, typer.Option(help="Where the tables are, instead of DELTA_ROOT.")] = None,
) -> None:
    """Ask DuckDB about the tables, each by its name: <pipeline>.<database>.<collection>. Nothing is changed.

    The object store is the one of S3_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and DELTA_ROOT; with DELTA_ROOT
    not set, that of this checkout's `make up`.
    """
    form = form or _format_of(output)
    if form is Format.PARQUET and output is None and sys.stdout.isatty():
        _fail("Parquet is nothing to look at: give --output FILE, or send it on with > or |", 2)
    statement = sql or SAMPLE_QUERY
    moment = None if as_of is None else _moment(as_of)
    try:
        with Lake(_settings(), root, LakeLimits(memory_mb=memory_mb, timeout_s=timeout)) as lake:
            if tables:
                print(*(table.view for table in lake.tables()), sep="\n")
            elif explain:
                _explain(lake, statement, moment)
            elif form is Format.TABLE:
                _print_table(lake, statement, moment, output)
            else:
                with lake.stream(statement, moment) as answer:
                    write_answer(answer, AnswerFormat(form.value), output)
    except (CdcError, StackError, duckdb.Error, pa.ArrowException) as error:
        _fail(str(error))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        _fail(f"{output or 'the output'} cannot be written: {error.strerror}")
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # DuckDB wraps a Ctrl-C during a query
            raise
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _settings() -> ObjectStoreSettings:
    """The shell's variables; where they say nothing about tables, those of `make up`."""
    if os.environ.get("DELTA_ROOT"):
        return _settings_of(os.environ)
    return _settings_of({**read_endpoints(ENDPOINTS), **os.environ})


def _settings_of(variables: Mapping[str, str]) -> ObjectStoreSettings:
    known = [str(field.validation_alias) for field in ObjectStoreSettings.model_fields.values()]
    try:
        return ObjectStoreSettings.model_validate({name: variables[name] for name in known if variables.get(name)})
    except ValidationError as error:
        wrong = ", ".join(str(each["loc"][0]) for each in error.errors(include_input=False))
        raise InvalidSettings(f"the environment is not usable: correct {wrong}") from None


def _format_of(output: Path | None) -> Format:
    with suppress(ValueError):
        return Format((output.suffix if output else "").removeprefix(".").lower())
    return Format.TABLE


def _moment(text: str) -> datetime | int:
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _fail(f"--as-of {text}: give a time as 2026-11-17T09:00:00Z, or the number of a version", 2)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print_table(lake: Lake, sql: str, moment: datetime | int | None, output: Path | None) -> None:
    """As DuckDB shows it: the first and the last rows of a long answer, and how many there are."""
    with lake.in_time():
        shown = str(lake.relation(sql, moment))
    if output is None:
        print(shown)
    else:
        output.write_text(shown)


def _explain(lake: Lake, sql: str, moment: datetime | int | None) -> None:
    plan = lake.explain(sql, moment)
    print(plan)
    for read, of in _FILES.findall(plan):
        print(f"files: {read} of {of} read, {int(of) - int(read)} skipped")
    if fetched := _FETCHED.search(plan):
        print(f"fetched from the object store: {fetched[1]}")


def _fail(message: str, status: int = 1) -> NoReturn:
    errors.print("[bold red]✗[/] ", end="")
    errors.print(message, markup=False)
    raise typer.Exit(status)


if __name__ == "__main__":
    command = typer.Typer(add_completion=False)
    command.command()(main)
    command(prog_name="scripts/query-deltalake.sh")
