"""A private MongoDB server on loopback: SecantusDB, which speaks MongoDB's wire protocol over WiredTiger."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, ChildProgram, free_ports
from provgate_stack.servers.installed import mongodb_program
from provgate_stack.servers.private import PrivateServer, ServerTls, inherited_environment

_READY_S: Final = 60.0
_POLL_MS: Final = 500
_CONTROL_MS: Final = 10_000


class MongoDbServer(PrivateServer):
    """A private MongoDB server: own port and data; every local user may do everything in it.

    It presents itself as a replica set of one member at its own address, so a client that reaches it through another
    address needs `directConnection=true`. Port and data stay the same over restarts. An acked write is on disk. Not
    thread-safe.

    Args:
        directory: the directory of the stack; all files are below it, except `data` if that is elsewhere.
        name: the name of its subdirectory, for a stack with several servers.
        data: the directory of the data, for a test that needs its own disk; made if it does not exist.
        tls: makes it require TLS and a client certificate.

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
        # An empty file, so that no configuration of the user or the system is read.
        configuration.touch()
        command = [program, "--config", str(configuration), "--storage-path", str(data or home / "data")]
        command += ["--host", LOOPBACK, "--port", str(self.port), "--log-level", "WARNING"]
        # Without it, a server that is killed loses the last writes that it has acked.
        command.append("--sync-on-commit")
        # The fault suite makes commands fail with `configureFailPoint`.
        command.append("--enable-test-commands")
        if tls is not None:
            files = ("--tls-cert-file", tls.certificate, "--tls-key-file", tls.key, "--tls-ca-file", tls.ca)
            command += [*map(str, files), "--tls-require-client-cert"]
        environment = inherited_environment() | directory.environment("mongodb")
        super().__init__(ChildProgram(command, environment, home / "mongodb.log"))

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
        """Stops the server with a checkpoint, even with connected clients. Idempotent."""
        if self._server.alive:
            self._server.terminate()

    def restart(self) -> None:
        """Stops and starts the server, with the same port and data."""
        self.stop()
        self.start()

    def require_users(self) -> None:
        """Restarts the server so that it serves only the users that were created before, with their roles."""
        self.stop()
        self._server.command.append("--auth")
        self.start()

    def url_of(self, user: str, password: str, database: str) -> str:
        """Returns the URL of a database for a user, who is stored in the database `admin`."""
        base, _, options = self.url(database).partition("?")
        options = "&".join(filter(None, (options, "authSource=admin")))
        return f"{base.replace('://', f'://{user}:{password}@', 1)}?{options}"

    def create_database(self, name: str) -> str:
        """Returns the URL of a database. MongoDB creates it with the first write."""
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
