"""The help texts of all commands, at the widths that terminals have."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from provgate_client.cli import main as provgate
from provgate_gateway.cli import main as gateway
from provgate_workers.cli.main import main as workers

PROGRAMS = {"provgate": provgate, "provgate-gateway": gateway, "provgate-workers": workers}


def commands(command: click.Command, parent: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, parent
    if isinstance(command, click.Group):
        inside = click.Context(command, parent=parent, info_name=command.name)
        for name in command.list_commands(inside):
            found = command.get_command(inside, name)
            assert found is not None
            yield from commands(found, inside)


def words(command: click.Command, parent: click.Context, width: int) -> set[str]:
    """Returns the words of a help text; without those of summaries, which are cut on purpose."""
    context = click.Context(command, parent=parent, info_name=command.name, terminal_width=width)
    return {word for word in command.get_help(context).split() if not word.endswith("...")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_name_is_cut(program: str) -> None:
    root = click.Context(PROGRAMS[program], info_name=program)
    every = list(commands(PROGRAMS[program], root))
    for command, parent in every:
        whole = words(command, parent, 10_000)
        for width in range(60, 121):
            assert words(command, parent, width) - whole == set(), f"{command.name} at {width}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_has_a_description(program: str) -> None:
    root = click.Context(PROGRAMS[program], info_name=program)
    options = [
        (command.name, option.opts)
        for command, _ in commands(PROGRAMS[program], root)
        for option in command.params
        if isinstance(option, click.Option) and not (option.help or "").partition("[default")[0].strip()
    ]
    assert options == []
