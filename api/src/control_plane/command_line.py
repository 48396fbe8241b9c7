"""The commands of the control plane."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.settings import LoggingSettings, load_settings
from control_plane.admin_command import make_admin
from control_plane.main import SERVICE, create_app
from control_plane.migrations import migrate as bring_forward
from control_plane.plain_errors import plain_errors
from control_plane.server import serve as serve_application
from control_plane.services.passwords import generate_password
from control_plane.settings import ApiSettings, Settings

EXIT_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # Locals hold credentials.
    pretty_exceptions_show_locals=False,
    help="The control plane: the API for pipelines, users and the audit trail, and the controller behind it.",
)


@app.command()
def serve() -> None:
    """Serve the API until SIGTERM or Ctrl-C. Everything is set by the environment; what is missing is named.

    The database is brought forward first. Several processes may serve one database: one of them is the controller.
    """
    with plain_errors():
        settings = Settings.from_environment()
        configure_logging(SERVICE, settings.logging.level, settings.logging.format)
        try:
            api = settings.api
            serve_application(create_app(settings), api.host, api.port, api.trusted_proxies)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


@app.command()
def migrate() -> None:
    """Bring the database POSTGRES_DSN forward to this release. `serve` does so too; repeating it is harmless."""
    with plain_errors():
        applied = asyncio.run(bring_forward(_dsn()))
    for each in applied:
        typer.echo(f"applied {each.number:04}_{each.name}")
    if not applied:
        typer.echo("the database is up to date")


@app.command("create-admin")
def create_admin(
    name: Annotated[str, typer.Argument(help="The user's name.")] = "admin",
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it; ask for none.")] = False,
) -> None:
    """Make an admin in the database POSTGRES_DSN, or give an existing user the role and a new password.

    The way back in when no admin can sign in. The password is asked for, or read from a line of the standard input.
    """
    with plain_errors():
        dsn = _dsn()
        password = generate_password() if generate else _asked_password()
        is_new = asyncio.run(make_admin(dsn, name, password))
    typer.echo(f"admin {name} made" if is_new else f"{name} is an admin with a new password; its sessions have ended")
    if generate:
        typer.echo(f"password: {password}")


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option(help="Write it there; otherwise to the standard output.")] = None,
    check: Annotated[Path | None, typer.Option(help="Only tell whether this file is up to date.")] = None,
) -> None:
    """The API's description, OpenAPI 3.1 in YAML. Nothing needs to run, and nothing to be set."""
    from control_plane.openapi import openapi_yaml  # an example that no longer fits its model stops no server

    text = openapi_yaml()
    if check is not None:
        if not check.exists() or check.read_text(encoding="utf-8") != text:
            typer.echo(f"error: {check} is not what the API is: run `make openapi` and commit it", err=True)
            raise typer.Exit(1)
        typer.echo(f"{check} is up to date")
    elif output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
        typer.echo(f"{output} written")
    else:
        typer.echo(text, nl=False)


def _dsn() -> str:
    """POSTGRES_DSN; logs no more than warnings, since whoever runs a command reads what it prints."""
    logging = load_settings(LoggingSettings)
    configure_logging(SERVICE, "WARNING" if logging.level == "INFO" else logging.level, logging.format)
    return load_settings(ApiSettings).postgres_dsn.get_secret_value()


def _asked_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")
