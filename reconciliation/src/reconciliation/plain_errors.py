"""How commands show errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from cdc_shared.errors import CdcError

EXIT_ERROR: Final = 2
"""As for a wrong command line: 1 and 3 are verdicts of `reconcile`."""
EXIT_INTERRUPTED: Final = 130
"""As shells have it: 128 and the number of SIGINT."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show an error raised on purpose as one line, without a traceback, and end with `EXIT_ERROR`; so Ctrl-C, with
    `EXIT_INTERRUPTED`.
    """
    try:
        yield
    except CdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
