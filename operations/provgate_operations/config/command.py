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
    help="The configuration file, in place of the one of `provgate`.",
)


@click.group(short_help="Shows the configuration in force, or a sample of it.")
def config() -> None:
    """Show the configuration that is in force, or a sample of it."""


@config.command()
@config_option
@click.option("--format", "output_format", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.pass_context
def show(context: click.Context, /, config_path: Path | None, output_format: str) -> None:
    """Print the value of every setting, and where it comes from.

    That is the default, the configuration file, a file that holds this value alone, an environment variable or a flag
    of `provgate`. Environment variables are those of this shell: a program that runs elsewhere may have others.
    Passwords, tokens and the users of addresses are shown as ***.
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
    values = {
        ".".join(each.place): each.value for each in effective_settings(root, config_path or root.params["config"])
    }
    if setting not in values:
        raise click.UsageError(f"{setting}: there is no such setting; `provgate config show` prints all")
    click.echo(scalar(values[setting]))


@config.command()
def sample() -> None:
    """Print a configuration file with every setting, explained."""
    click.echo(sample_text(), nl=False)
