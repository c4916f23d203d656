"""The clients of an open storage, one for reads and one for writes, and what each kind of use may take of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import pymongo
from pymongo import MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database

from provgate_storage.errors import StorageBusyError, StorageUnavailableError
from provgate_storage.mongodb import schema
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.mongodb.settings import MongoDbSettings, client_options, database_name

Document: TypeAlias = dict[str, Any]


class Slots:
    """How many calls of one kind run at once. Thread-safe.

    pymongo's own pool is one for all kinds: streams that fill it would make writes wait.

    Args:
        count: how many there are.
        wait_s: how long `take` waits for one, in seconds.
    """

    def __init__(self, count: int, wait_s: float) -> None:
        self._count = count
        self._wait_s = wait_s
        self._free = threading.Semaphore(count)

    def take(self) -> None:
        """Takes one, to be given back. Raises `StorageBusyError` where none became free in time."""
        if not self._free.acquire(timeout=self._wait_s):
            raise StorageBusyError(f"all {self._count} connections are in use since {self._wait_s:g} s")

    def give_back(self) -> None:
        """Gives back what `take` took."""
        self._free.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds one during the block."""
        self.take()
        try:
            yield
        finally:
            self.give_back()


class Connection:
    """An open database. Thread-safe; pymongo makes connections when they are needed, and again when they are lost.

    Attributes:
        timeout_s: how long a call waits for a primary, in seconds.
        database: for reads.
        written: the same one, for writes.

    Raises:
        StorageUnavailableError: no primary was found in time.
    """

    def __init__(self, settings: MongoDbSettings) -> None:
        self.timeout_s = settings.connect_timeout_s
        self._settings = settings
        self._reads = _client(settings, max(settings.read_timeout_s, settings.stream_timeout_s))
        self._writes = _client(settings, settings.write_timeout_s)
        # At the primary, whatever the URI says: a read that starts after an ack sees the write.
        name, primary = database_name(settings), ReadPreference.PRIMARY
        self.database: Database[Document] = self._reads.get_database(name, read_preference=primary)
        self.written: Database[Document] = self._writes.get_database(name, read_preference=primary)
        self._has_schema = False
        self._closed = False
        try:
            server = self._hello()
        except BaseException:
            self.close()
            raise
        # A server on its own keeps no history to read a snapshot of.
        self._has_snapshots = "setName" in server or server.get("msg") == "isdbgrid"

    def close(self) -> None:
        """Closes all connections: calls that are under way raise `StorageUnavailableError`."""
        self._closed = True
        self._reads.close()
        self._writes.close()

    def probe(self) -> None:
        """Reads at the primary: a server whose storage engine has failed may still say hello."""
        with translated_errors(), pymongo.timeout(self.timeout_s):
            schema.recorded_range_counts(self.database)

    def read_from(self, name: str) -> Collection[Document]:
        """Returns a collection to read from. Raises `SchemaMismatchError` where the database was never set up."""
        self._require_schema()
        return self.database[name]

    def write_to(self, name: str) -> Collection[Document]:
        """Returns a collection to write to.

        Raises:
            SchemaMismatchError: the database was never set up: a write would make a collection without indexes.
        """
        self._require_schema()
        return self.written[name]

    @contextmanager
    def setting_up(self) -> Iterator[Database[Document]]:
        """Gives the database over a client of its own that waits as long as an index takes."""
        with _client(self._settings, answer_timeout_s=0) as client:
            yield client.get_database(self.written.name, read_preference=ReadPreference.PRIMARY)

    def start_session(self) -> ClientSession:
        """Returns a session, all of whose reads are of one snapshot where the server offers that."""
        if self._closed:
            raise StorageUnavailableError("the storage is closed")
        with translated_errors():
            return self._reads.start_session(snapshot=self._has_snapshots)

    def end(self, session: ClientSession) -> None:
        """Ends what a session runs at the server, from any thread. Raises `StorageError` where it cannot be asked."""
        with translated_errors(), pymongo.timeout(self.timeout_s):
            self._reads.admin.command("killSessions", [session.session_id])

    def _require_schema(self) -> None:
        if not self._has_schema:
            with translated_errors(), pymongo.timeout(self.timeout_s):
                schema.check_recorded(self.database)
            self._has_schema = True

    def _hello(self) -> Mapping[str, Any]:
        with translated_errors(), pymongo.timeout(self.timeout_s):
            answer: Mapping[str, Any] = self._reads.admin.command("hello")
            return answer


def _client(settings: MongoDbSettings, answer_timeout_s: float) -> MongoClient[Document]:
    # It connects when it is used: a gateway never writes.
    return MongoClient(**client_options(settings, answer_timeout_s), connect=False)
