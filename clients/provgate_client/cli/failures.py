"""How a command fails: one line on standard error, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from provgate_client.git.settings import GitIndexError
from provgate_client.identifiers import IdentifierError
from provgate_storage.errors import StorageError

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells have it.


class CommandError(click.ClickException):
    """A command failed. Exits with 1."""


class ReportingGroup(click.Group):
    """A group of commands that turns what they may raise into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with reported(ctx):
            return super().invoke(ctx)


@contextmanager
def reported(context: click.Context) -> Iterator[None]:
    """Turns the errors of our packages into click's, and Ctrl-C into exit code 130."""
    try:
        yield
    except (StorageError, GitIndexError) as error:
        raise CommandError(one_line(str(error))) from error
    except IdentifierError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        context.exit(INTERRUPTED_EXIT_CODE)


def one_line(text: str) -> str:
    """Returns `text` on one line."""
    return " ".join(text.split())
