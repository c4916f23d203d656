"""How a command fails: one line on standard error, and an exit code."""

from __future__ import annotations

from typing import IO, Any, Final

import click

from provgate_client.git.settings import GitIndexError
from provgate_client.identifiers import IdentifierError
from provgate_storage.errors import StorageError

INTERRUPTED: Final = "Interrupted."
INTERRUPTED_EXIT_CODE: Final = 130  # 128 + SIGINT, as shells report it


class CommandError(click.ClickException):
    """A command failed. Exits with 1."""


class CommandInterruptedError(click.ClickException):
    """Ctrl-C ended a command. Exits with 130."""

    exit_code = INTERRUPTED_EXIT_CODE

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the message."""
        click.echo(self.message, err=True)


class ReportingGroup(click.Group):
    """A group of commands that turns the errors of this project, and Ctrl-C, into errors of click."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (StorageError, GitIndexError) as error:
            raise CommandError(one_line(str(error))) from error
        except IdentifierError as error:
            raise click.UsageError(str(error)) from error
        except KeyboardInterrupt as error:
            raise CommandInterruptedError(INTERRUPTED) from error


def one_line(text: str) -> str:
    """Returns `text` on one line."""
    return " ".join(text.split())
