"""What the private servers have in common."""

from __future__ import annotations

from pathlib import Path

from provgate_stack.process import ChildProgram


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
