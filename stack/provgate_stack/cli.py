"""The command line of the launcher, for the targets of the Makefile."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from provgate_stack.command_line import run_command_line
from provgate_stack.demo import lines_to_paste, run_demo, sample_file
from provgate_stack.errors import StackError
from provgate_stack.launcher import PREFERRED_PORT, running_stack, start_in_background, stop_background
from provgate_stack.processes.directory import RunningStack
from provgate_stack.servers.packages import install_what_tests_need
from provgate_stack.servers.selection import STORAGES

_CLONE: Final = Path(__file__).resolve().parent.parent.parent
# git's id of an empty file.
_EMPTY_FILE: Final = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=_CLONE / ".stack",
    show_default=True,
    help="The directory of all files of stacks.",
)
storage_option = click.option(
    "--storage", type=click.Choice([*STORAGES]), default="postgresql", show_default=True, help="The local storage."
)


@click.group()
def cli() -> None:
    """Run RabbitMQ, a database, workers and gateway on this machine.

    PROVGATE_AMQP_URL, PROVGATE_POSTGRES_DSN and PROVGATE_MONGODB_URL name existing servers to use instead of private
    ones. They are not stopped.
    """


@cli.command()
@root_option
@click.option(
    "--repo", type=click.Path(path_type=Path), default=_CLONE, show_default=True, help="The git repository to index."
)
@storage_option
def demo(root: Path, repo: Path, storage: str) -> None:
    """Index a git repository through a temporary stack and ask where a file first appeared."""
    run_demo(root, repo, storage)


@cli.command()
@root_option
@storage_option
def up(root: Path, storage: str) -> None:
    """Start a stack that keeps running."""
    facts = running_stack(root)
    if facts is None:
        facts = start_in_background(root, storage)
        print("\nThe stack is up.")
    elif facts.storage != storage:
        raise StackError(f"a stack on {STORAGES[facts.storage]} is up: run `make down` first")
    else:
        print("The stack is up already.")
    _print_facts(facts)


@cli.command()
@root_option
def down(root: Path) -> None:
    """Stop the stack that keeps running and remove its data."""
    print("The stack is down." if stop_background(root) else "No stack is up.")


@cli.command()
def install() -> None:
    """Install missing packages that the tests need. MongoDB's server comes with `make venv`."""
    install_what_tests_need()


def main() -> None:
    """Runs the command line."""
    run_command_line(cli)


def _print_facts(facts: RunningStack) -> None:
    try:
        sample_id = sample_file(_CLONE).id
    except StackError:
        # The sources were unpacked from an archive.
        sample_id = _EMPTY_FILE
    if not facts.gateway.endswith(f":{PREFERRED_PORT}"):
        print(f"Warning: port {PREFERRED_PORT} is taken: what looks for a gateway there finds another program.")
    print(f"  storage        {STORAGES[facts.storage]}")
    print(f"  gateway        {facts.gateway}")
    print(f"  configuration  {facts.config}")
    print(f"  logs           {facts.logs}")
    print(f"  metrics        {' '.join(f'http://{address}/metrics' for address in facts.metrics)}")
    print("\nPaste:\n")
    print(lines_to_paste(facts.gateway, _CLONE, sample_id))
    print("\n`make down` stops it.", flush=True)
