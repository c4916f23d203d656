"""What the private servers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provgate_stack.processes.process import ChildProgram


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server that encrypts, and that takes only clients with a certificate.

    Attributes:
        certificate, key: what the server shows; for 127.0.0.1.
        ca: the authority that the certificates of server and clients come from.
        client: key and chain of what the launcher itself shows, in one file that nobody else may read. PostgreSQL wants
            the name of its user, `provgate`, as the common name.
    """

    certificate: Path
    key: Path
    ca: Path
    client: Path


class PrivateServer:
    """A server of our own that is one child program. Not thread-safe.

    Args:
        server: the program, not yet started.
    """

    def __init__(self, server: ChildProgram) -> None:
        self._server = server

    @property
    def pid(self) -> int:
        """The pid of the server, which is its process group too."""
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

        Its kernel still takes connections; what has a session of its own, as backends of PostgreSQL have, goes on.
        """
        self._server.stop()

    def resume(self) -> None:
        """Lets a suspended server go on (SIGCONT)."""
        self._server.cont()
