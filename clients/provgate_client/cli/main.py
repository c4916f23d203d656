"""The command `provgate` itself."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

import click

from provgate_client.cli.add import add
from provgate_client.cli.all import all_
from provgate_client.cli.connection import Connection
from provgate_client.cli.failures import CommandError, ReportingGroup
from provgate_client.cli.first import first
from provgate_client.cli.get import get
from provgate_client.cli.id import id_
from provgate_client.cli.index import index
from provgate_client.settings import GrpcSettings
from provgate_runtime import setting_options
from provgate_runtime.options import keep_names_whole

ENTRY_POINT_GROUP: Final = "provgate.commands"


class ExtensibleGroup(ReportingGroup):
    """A group with its own commands and those of entry points.

    The module of an entry point is imported when its command is used, so that `provgate first` needs only the client.
    A command whose packages are not installed is not listed. If it is called, the error says what to install.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands that can be called."""
        return sorted({*super().list_commands(ctx), *(name for name in _points() if _loaded(name) is not None)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command by its name; None if there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _points():
            return own
        command = _loaded(cmd_name)
        if command is None:
            raise CommandError(f"`provgate {cmd_name}` needs another package: pip install 'provgate[operations]'")
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


keep_names_whole()


@click.group(
    cls=ExtensibleGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done; 1 failed, incomplete or nothing found; 2 invalid usage or configuration; 130 Ctrl-C.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The YAML file with the section provenance.storage. [env var: PROVGATE_CONFIG, SWH_CONFIG_FILENAME]",
)
@setting_options(GrpcSettings, "PROVGATE")
@click.version_option(package_name="provgate")
@click.pass_context
def main(context: click.Context, /, config: Path | None, **_settings: Any) -> None:
    """Reads a provenance index through its gateway (where did source code first appear?), and writes to it.

    Flags override environment variables, and these override the configuration file. Without a file, the stack of the
    clone in which you work is used, if it runs (make up).
    """
    context.obj = Connection(context, config)


for command in (index, first, all_, get, add, id_):
    main.add_command(command)
