"""The command `provgate token`, which makes tokens."""

from __future__ import annotations

import os
from pathlib import Path

import click

from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import NAME, NAME_RULE, TokenLine, digest_of, new_token, read_token_file
from provgate_runtime import ConfigurationError


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="The role of the holder.")
@click.option(
    "--append",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the line to this file of tokens. A new file is readable by you alone.",
)
def token(name: str, role: str, file: Path | None) -> None:
    """Makes a token for NAME and prints it once: only its hash is kept.

    The line for the gateway's file of tokens (provenance.gateway.access.tokens_file) goes to standard error, or with
    --append to the file. A running gateway reads the file again by itself.
    """
    if not NAME.fullmatch(name):
        raise click.UsageError(f"NAME {NAME_RULE}")
    made = new_token()
    line = TokenLine(name, Role(role), digest_of(made))
    if file is None:
        click.echo(str(line), err=True)
    else:
        _append(file, line)
    click.echo(made)


def _append(file: Path, line: TokenLine) -> None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        others = read_token_file(str(file)) if text else []
        if any(other.name == line.name and other.role is not line.role for other in others):
            raise ConfigurationError(f"{file}: {line.name} is there with another role")
        begin = "\n" if text and not text.endswith("\n") else ""
        # A single write: the gateway reads only whole lines.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "wb", buffering=0) as opened:
            opened.write(f"{begin}{line}\n".encode())
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
