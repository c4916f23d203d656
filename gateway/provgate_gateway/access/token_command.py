"""The command `provgate token`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import TokenLine, digest_of, is_name, new_token, read_token_file
from provgate_runtime import ConfigurationError


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What its holder may do.")
@click.option(
    "--append",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the line to this file of tokens; a new one is readable by you alone.",
)
def token(name: str, role: str, file: Path | None) -> None:
    """Makes a token for NAME and prints it, once: only its hash is kept.

    The line for the gateway's file of tokens (provenance.gateway.access.tokens_file) goes to standard error, or with
    --append to the file. A gateway that runs takes note of it by itself.
    """
    if not is_name(name):
        raise click.UsageError("NAME is up to 128 letters, digits and ._@:/+=-")
    made = new_token()
    line = TokenLine(name, Role(role), digest_of(made))
    if file is None:
        click.echo(str(line), err=True)
    else:
        _append(file, line)
    click.echo(made)


def _append(file: Path, line: TokenLine) -> None:
    try:
        _check_fits(file, line)
        # One write at the end: whoever reads the file meanwhile sees whole lines.
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "r+b", buffering=0) as opened:
            begin = b"" if _ends_with_newline(opened.fileno()) else b"\n"
            opened.write(begin + f"{line}\n".encode())
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error


def _check_fits(file: Path, line: TokenLine) -> None:
    if not file.exists() or file.stat().st_size == 0:
        return
    if any(other.name == line.name and other.role is not line.role for other in read_token_file(str(file))):
        raise ConfigurationError(f"{file}: {line.name} is there with another role")


def _ends_with_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
