"""How commands show errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cdc_shared.errors import CdcError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show an error raised on purpose as one line, without a traceback, and end with status 1."""
    try:
        yield
    except CdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
