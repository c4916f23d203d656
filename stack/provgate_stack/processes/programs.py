"""Gateway, workers and client as child programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import ChildProgram

_READY_S: Final = 60.0


class ReadyFileProgram(ChildProgram):
    """A program that writes a file when it is ready.

    Attributes:
        metrics_address: the address of its watch port, `host:port`; "off" if it has none.
        ready_file: the file.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str], log_path: Path, metrics_address: str = "off"
    ) -> None:
        self.metrics_address = metrics_address
        self.ready_file = log_path.with_suffix(".ready")
        super().__init__([*command, "--ready-file", str(self.ready_file)], environment, log_path)

    def start(self) -> None:
        """Starts the program; returns at once. It may have been started before."""
        self.ready_file.unlink(missing_ok=True)
        super().start()

    def wait_ready(self, timeout_s: float = _READY_S) -> None:
        """Returns as soon as the program is ready.

        Raises:
            StartError: it ended, or `timeout_s` passed.
        """
        self.wait_until(self.ready_file.exists, timeout_s)


class WorkerProgram(ReadyFileProgram):
    """A worker program: `provgate-workers run`."""

    def __init__(self, environment: Mapping[str, str], log_path: Path, metrics_address: str) -> None:
        super().__init__([program_path("provgate-workers"), "run"], environment, log_path, metrics_address)


class GatewayProgram(ReadyFileProgram):
    """A gateway: `provgate-gateway`."""

    def __init__(self, environment: Mapping[str, str], log_path: Path, metrics_address: str) -> None:
        super().__init__([program_path("provgate-gateway")], environment, log_path, metrics_address)

    @property
    def address(self) -> str:
        """Its address once it is ready: `host:port`."""
        return self.ready_file.read_text(encoding="ascii").strip()


def program_path(name: str) -> str:
    """Returns the path of a program that is installed beside this interpreter."""
    return str(Path(sys.executable).parent / name)


def program_environment(directory: StackDirectory, role: str, config: Path) -> dict[str, str]:
    """Returns the environment of a program of the stack: the launcher's, but only the file `config` configures it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROVGATE_", "STATSD_")) and name != "SWH_CONFIG_FILENAME"
    }
    return inherited | directory.environment(role) | {"PROVGATE_CONFIG": str(config)}
