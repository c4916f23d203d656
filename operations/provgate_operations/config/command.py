"""The command `provgate config`."""

from __future__ import annotations

from pathlib import Path

import click

from provgate_operations.config.effective import as_json, as_yaml, effective_settings, scalar
from provgate_operations.config.sample import sample as sample_text

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file. It overrides --config of `provgate`.",
)


@click.group(short_help="Shows the configuration in force, or a sample configuration.")
def config() -> None:
    """Show the configuration in force, or a sample configuration."""


@config.command()
@config_option
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Format of the output.",
)
@click.pass_context
def show(context: click.Context, /, config_path: Path | None, output_format: str) -> None:
    """Print the value of every setting and its source.

    The source is the default, the configuration file, a file that holds only this value, an environment variable, or a
    flag of `provgate`. Environment variables are those of this shell; a program that runs elsewhere may have others.
    A value that may hold a secret, such as a URL, a DSN or a token, is shown as ***.
    """
    root = context.find_root()
    settings = effective_settings(root, config_path or root.params.get("config"))
    click.echo(as_json(settings) if output_format == "json" else as_yaml(settings), nl=False)


@config.command()
@config_option
@click.argument("setting", metavar="PATH")
@click.pass_context
def get(context: click.Context, /, config_path: Path | None, setting: str) -> None:
    """Print the value of one setting, for example of provenance.storage.url, the gateway's address."""
    root = context.find_root()
    settings = effective_settings(root, config_path or root.params["config"])
    values = {".".join(each.place): each.value for each in settings}
    if setting not in values:
        raise click.UsageError(f"{setting}: there is no such setting; `provgate config show` prints all")
    click.echo(scalar(values[setting]))


@config.command()
def sample() -> None:
    """Print a configuration file with every setting and its explanation."""
    click.echo(sample_text(), nl=False)
