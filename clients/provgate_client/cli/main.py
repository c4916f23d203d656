"""The command `provgate` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provgate_client.adapter import GrpcSettings
from provgate_client.cli.add import add
from provgate_client.cli.all import all_
from provgate_client.cli.commands import ExtensibleGroup
from provgate_client.cli.connection import Connection
from provgate_client.cli.first import first
from provgate_client.cli.get import get
from provgate_client.cli.id import id_
from provgate_client.cli.index import index
from provgate_config import setting_options
from provgate_config.help_text import keep_names_whole

keep_names_whole()


@click.group(
    cls=ExtensibleGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done; 1 failed, incomplete or nothing found; 2 wrong usage or configuration; 130 Ctrl-C.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The YAML file whose section provenance.storage is used. [env var: PROVGATE_CONFIG, SWH_CONFIG_FILENAME]",
)
@setting_options(GrpcSettings, "PROVGATE")
@click.version_option(package_name="provgate")
@click.pass_context
def main(context: click.Context, /, config: Path | None, **_settings: Any) -> None:
    """Asks a provenance index, through its gateway, where source code first appeared; and writes to it.

    Flags go before environment variables, and these before the configuration file. Without one, the stack of the clone
    that the working directory is in counts, if one is up there (make up).
    """
    context.obj = Connection(context, config)


for command in (index, first, all_, get, add, id_):
    main.add_command(command)
