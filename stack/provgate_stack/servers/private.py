"""The common part of the private servers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from provgate_stack.processes.process import ChildProgram


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server that requires TLS and a client certificate.

    Attributes:
        certificate, key: of the server; for 127.0.0.1.
        ca: the authority that issued the certificates of server and clients.
        client: key and chain of the launcher, in one file that nobody else may read. PostgreSQL requires its user's
            name, `provgate`, as the common name.
    """

    certificate: Path
    key: Path
    ca: Path
    client: Path


def inherited_environment(*names: str) -> dict[str, str]:
    """Returns the variables of the launcher that a server inherits. A stray PG* or RABBITMQ_* would change it."""
    return {name: os.environ[name] for name in ("PATH", "LANG", *names) if name in os.environ}


class PrivateServer:
    """A private server that is one child program. Not thread-safe.

    Args:
        server: the program, not yet started.
    """

    def __init__(self, server: ChildProgram) -> None:
        self._server = server

    @property
    def pid(self) -> int:
        """The pid of the server, which is also its process group."""
        return self._server.pid

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._server.alive

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._server.log_path

    def kill(self) -> None:
        """Kills the server and its children (SIGKILL). Idempotent."""
        self._server.kill()

    def suspend(self) -> None:
        """Stops the server's process group (SIGSTOP) until `resume`.

        The kernel still accepts connections. Processes with a session of their own, as backends of PostgreSQL, go on.
        """
        self._server.stop()

    def resume(self) -> None:
        """Continues a suspended server (SIGCONT)."""
        self._server.cont()
