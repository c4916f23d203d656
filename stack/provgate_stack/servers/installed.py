"""The paths of the servers' programs, and of other programs that tests run, on this machine.

Each function raises `MissingProgramError` if its program is not installed.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from provgate_stack.errors import MissingProgramError
from provgate_stack.processes.programs import program_path

# The programs in the package's own directory: Debian's on the PATH change to the user `rabbitmq`.
_RABBITMQ_PLACES: Final = ("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin", "opt/rabbitmq*/sbin", "usr/local/sbin")
_POSTGRESQL_PLACES: Final = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin", "usr/bin")


def rabbitmq_programs() -> Path:
    """Returns the directory of rabbitmq-server and rabbitmqctl, of the newest installed version."""
    needed = ("rabbitmq-server", "rabbitmq-env", "rabbitmqctl")
    return _newest("RabbitMQ (Debian, Ubuntu: the package rabbitmq-server)", _RABBITMQ_PLACES, needed)


def postgresql_programs() -> Path:
    """Returns the directory of postgres and initdb, of the newest installed version."""
    return _newest("PostgreSQL (Debian, Ubuntu: the package postgresql)", _POSTGRESQL_PLACES, ("postgres", "initdb"))


def mongodb_program() -> str:
    """Returns the path of SecantusDB's server, which comes with the development tools."""
    program = program_path("secantusd-py")
    if not Path(program).is_file():
        raise MissingProgramError(f"SecantusDB is not installed beside {sys.executable}: run `make venv`")
    return program


def promtool_program() -> str:
    """Returns the path of promtool, which checks rules for Prometheus."""
    program = shutil.which("promtool")
    if program is None:
        raise MissingProgramError(
            "promtool (Debian, Ubuntu: the package prometheus) is not installed: run `make test`, or install it by hand"
        )
    return program


def _newest(server: str, places: Sequence[str], needed: Sequence[str]) -> Path:
    directories = sorted({path for place in places for path in Path("/").glob(place)}, key=_version, reverse=True)
    on_path = shutil.which(needed[0])
    if on_path:
        directories.append(Path(on_path).resolve().parent)
    for directory in directories:
        if all((directory / program).is_file() for program in needed):
            return directory
    raise MissingProgramError(f"{server} is not installed")


def _version(directory: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(directory))]
