"""Commands that other packages add to `provgate`, as entry points of one group."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

from provgate_client.cli.failures import CommandError, ReportingGroup

ENTRY_POINT_GROUP: Final = "provgate.commands"


class ExtensibleGroup(ReportingGroup):
    """A group with commands of its own, and with those of the entry points.

    The module of a command is imported when the command is asked for, so that `provgate first` needs no more than the
    client does. A command whose packages are not installed is not listed; called, it says what to install.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands that can be called."""
        return sorted({*super().list_commands(ctx), *(name for name in _points() if _loaded(name) is not None)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command by its name; None where there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _points():
            return own
        command = _loaded(cmd_name)
        if command is None:
            raise CommandError(f"`provgate {cmd_name}` needs more than the client: pip install 'provgate[operations]'")
        return command


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _loaded(name: str) -> click.Command | None:
    try:
        command = _points()[name].load()
    except ModuleNotFoundError:
        return None
    return command if isinstance(command, click.Command) else None
