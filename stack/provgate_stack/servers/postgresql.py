"""A private PostgreSQL cluster on loopback."""

from __future__ import annotations

import os
import pwd
import secrets
import signal
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import psycopg2
from psycopg2 import sql

from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, ChildProgram, User, free_ports
from provgate_stack.servers.installed import postgresql_programs
from provgate_stack.servers.private import PrivateServer, ServerTls, inherited_environment

_USER: Final = "provgate"
_READY_S: Final = 60.0
_INITDB_S: Final = 120.0
_MAX_CONNECTIONS: Final = 300

ShutdownMode: TypeAlias = Literal["fast", "immediate"]

# https://www.postgresql.org/docs/current/server-shutdown.html
_SIGNALS: Final[dict[ShutdownMode, signal.Signals]] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgreSqlCluster(PrivateServer):
    """A private PostgreSQL server: own port, data and password; only on loopback TCP.

    Port, data and password stay the same over restarts. Not thread-safe.

    Args:
        directory: the directory of the stack. The data is below it, except for root: the server refuses to run as root,
            so it runs as another user, with its data in a directory that this user can enter.
        name: the name of its subdirectory, for a stack with several clusters.
        tls: makes it require TLS, a client certificate with the user's name, and the password.

    Raises:
        MissingProgramError: PostgreSQL is not installed.
    """

    def __init__(self, directory: StackDirectory, name: str = "postgresql", tls: ServerTls | None = None) -> None:
        self._programs = postgresql_programs()
        self._tls = tls
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        self._home = directory.subdirectory(name)
        self._place = directory.outside_directory() if self._user else self._home
        self._give_to_user(self._place)
        self._data = self._place / "data"
        (self.port,) = free_ports(1)
        self._password = secrets.token_urlsafe(12)
        self._environment = inherited_environment() | directory.environment("postgresql")
        settings: dict[str, object] = {
            "port": self.port,
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": _MAX_CONNECTIONS,
            # In the data directory, so that a killed server leaves no file in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            "timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%a@%d ",
        }
        if tls is not None:
            settings |= {"ssl": "on", "ssl_ca_file": "ca.crt"}
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        super().__init__(ChildProgram(command, self._environment, self._home / "postgresql.log", self._user))

    def dsn(self, database: str = "postgres") -> str:
        """Returns the connection URL of a database, with user and password."""
        base = f"postgresql://{_USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"
        if self._tls is None:
            return base
        files = f"sslrootcert={self._tls.ca}&sslcert={self._tls.client}&sslkey={self._tls.client}"
        return f"{base}?sslmode=verify-full&{files}"

    def storage_config(self, database: str) -> dict[str, Any]:
        """Returns the storage configuration of a database."""
        return postgresql_storage(self.dsn(database))

    def start(self) -> None:
        """Makes the cluster if there is none yet, and starts it; returns when it accepts connections.

        Raises:
            StartError: it ended or was not ready in time.
        """
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        self._server.start()
        self._server.wait_until(self._accepts, _READY_S)

    def stop(self, mode: ShutdownMode = "fast") -> None:
        """Stops the server: `fast` with a checkpoint, `immediate` with recovery at the next start. Idempotent."""
        if self._server.alive:
            self._server.terminate(request=_SIGNALS[mode])

    def restart(self, mode: ShutdownMode = "fast") -> None:
        """Stops and starts the server, with the same port and data."""
        self.stop(mode)
        self.start()

    def create_database(self, name: str) -> str:
        """Creates an empty database and returns its DSN."""
        create_database(self.dsn(), name)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drops a database; connections to it are ended."""
        drop_database(self.dsn(), name)

    def _initialize(self) -> None:
        password_file = self._place / "password"
        password_file.write_text(self._password, encoding="ascii")
        password_file.chmod(0o600)
        self._give_to_user(password_file)
        command = [str(self._programs / "initdb"), "-D", str(self._data), "--username", _USER]
        command += ["--pwfile", str(password_file), "--auth", "scram-sha-256"]
        command += ["--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"]
        initdb = ChildProgram(command, self._environment, self._home / "initdb.log", self._user)
        initdb.start()
        try:
            initdb.complete(_INITDB_S)
        finally:
            initdb.kill()
            password_file.unlink()
        if self._tls is None:
            return
        files = ((self._tls.certificate, "server.crt"), (self._tls.key, "server.key"), (self._tls.ca, "ca.crt"))
        for source, name in files:
            copy = self._data / name
            copy.touch(mode=0o600)
            # The server refuses a key that others may read, and may not be able to enter the original's directory.
            copy.write_bytes(source.read_bytes())
            self._give_to_user(copy)
        rule = f"hostssl all all {LOOPBACK}/32 scram-sha-256 clientcert=verify-full\n"
        (self._data / "pg_hba.conf").write_text(rule, encoding="ascii")

    def _accepts(self) -> bool:
        try:
            psycopg2.connect(self.dsn(), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _give_to_user(self, path: Path) -> None:
        if self._user:
            os.chown(path, self._user.uid, self._user.gid)


def postgresql_storage(dsn: str, **settings: Any) -> dict[str, Any]:
    """Returns the storage configuration of a database."""
    return {"cls": "postgresql", "db": dsn, **settings}


def create_database(dsn: str, name: str) -> None:
    """Creates an empty database on the server of `dsn`.

    Raises:
        StackError: the server refused.
    """
    # template0: template1 may contain additions.
    _execute(dsn, sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))


def drop_database(dsn: str, name: str) -> None:
    """Drops a database on the server of `dsn`, if it exists; connections to it are ended.

    Raises:
        StackError: the server refused.
    """
    _execute(dsn, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _execute(dsn: str, statement: sql.Composed) -> None:
    try:
        with closing(psycopg2.connect(dsn, connect_timeout=10)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
    except psycopg2.Error as error:
        raise StackError(f"PostgreSQL refused: {error}") from error


def _unprivileged_user() -> User:
    """Returns the user of the system's package, or `nobody`."""
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid)
    raise StackError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
