"""A private MongoDB server on loopback: SecantusDB, which speaks MongoDB's wire protocol over WiredTiger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, ChildProgram, free_ports
from provgate_stack.servers.installed import mongodb_program
from provgate_stack.servers.private import PrivateServer, ServerTls

_READY_S: Final = 60.0
_POLL_MS: Final = 500
_CONTROL_MS: Final = 10_000

# Of what surrounds the launcher, only this reaches a server.
_INHERITED: Final = ("PATH", "LANG")


class MongoDbServer(PrivateServer):
    """A MongoDB server of our own: own port and data; whoever reaches loopback may do everything in it.

    It tells its clients that it is a replica set of one member, at its own address: a client that reaches it over
    something else needs `directConnection=true`. Port and data stay the same over restarts. An acked write is on disk.
    Not thread-safe.

    Args:
        directory: of the stack that the server belongs to; all that it writes is below, but for the data where that
            is elsewhere.
        name: of its directory, where a stack has more than one.
        data: where the data is, for a test that needs it on a disk of its own; made where it does not exist.
        tls: has it take connections with TLS and a client's certificate alone.

    Raises:
        MissingProgramError: SecantusDB is not installed.
    """

    def __init__(
        self,
        directory: StackDirectory,
        name: str = "mongodb",
        data: Path | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        program = mongodb_program()
        self._tls = tls
        home = directory.subdirectory(name)
        (self.port,) = free_ports(1)
        configuration = home / "secantusd.toml"
        # It is empty, and there so that no file of the user's or the system's is read.
        configuration.touch()
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        super().__init__(
            ChildProgram(
                [
                    program,
                    "--config",
                    str(configuration),
                    "--storage-path",
                    str(data or home / "data"),
                    *self._options(),
                ],
                environment | directory.environment("mongodb"),
                home / "mongodb.log",
            )
        )

    def url(self, database: str = "") -> str:
        """Returns the URL of a database, or of the server."""
        base = f"mongodb://{LOOPBACK}:{self.port}/{database}"
        if self._tls is None:
            return base
        return f"{base}?tls=true&tlsCAFile={self._tls.ca}&tlsCertificateKeyFile={self._tls.client}"

    def storage_config(self, database: str) -> dict[str, Any]:
        """Returns the storage configuration of a database."""
        return mongodb_storage(self.url(database))

    def start(self) -> None:
        """Starts the server; returns when it answers (0.5 s).

        Raises:
            StartError: it ended or was not ready in time.
        """
        self._server.start()
        self._server.wait_until(self._answers, _READY_S)

    def stop(self) -> None:
        """Stops the server with a checkpoint, whoever is connected. Idempotent."""
        if self._server.alive:
            self._server.terminate()

    def restart(self) -> None:
        """Stops and starts the server, with the same port and data."""
        self.stop()
        self.start()

    def require_users(self) -> None:
        """Starts the server anew, for users alone: those that were made before, with their roles."""
        self.stop()
        self._server.command.append("--auth")
        self.start()

    def url_of(self, user: str, password: str, database: str) -> str:
        """Returns the URL of a database for a user, who is known to the database `admin`."""
        base, _, options = self.url(database).partition("?")
        options = "&".join(filter(None, (options, "authSource=admin")))
        return f"{base.replace('://', f'://{user}:{password}@', 1)}?{options}"

    def create_database(self, name: str) -> str:
        """Returns the URL of a database. MongoDB makes it with the first write to it."""
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drops a database; connections stay."""
        drop_database(self.url(), name)

    def _answers(self) -> bool:
        try:
            with MongoClient[dict[str, Any]](self.url(), serverSelectionTimeoutMS=_POLL_MS) as client:
                client.admin.command("hello")
        except PyMongoError:
            return False
        return True

    def _options(self) -> list[str]:
        return [
            *("--host", LOOPBACK, "--port", str(self.port), "--log-level", "WARNING"),
            # Without it, a server that is killed loses what it has acked in its last moments.
            "--sync-on-commit",
            # The fault suite has it fail at a command of its choice: `configureFailPoint`.
            "--enable-test-commands",
            *self._tls_options(),
        ]

    def _tls_options(self) -> list[str]:
        if self._tls is None:
            return []
        tls = self._tls
        files = ("--tls-cert-file", tls.certificate, "--tls-key-file", tls.key, "--tls-ca-file", tls.ca)
        return [*map(str, files), "--tls-require-client-cert"]


def mongodb_storage(url: str, **settings: Any) -> dict[str, Any]:
    """Returns the storage configuration of a database."""
    return {"cls": "mongodb", "db": url, **settings}


def drop_database(url: str, name: str) -> None:
    """Drops a database on the server of `url`, if it exists.

    Raises:
        StackError: the server refused, or was not there.
    """
    try:
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=_CONTROL_MS) as client:
            client.drop_database(name)
    except PyMongoError as error:
        raise StackError(f"MongoDB refused: {error}") from error
