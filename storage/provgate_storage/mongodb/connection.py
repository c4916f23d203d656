"""The one client of an open storage, and what each kind of use may take of it."""

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

    Raises:
        StorageUnavailableError: no primary was found in time.
    """

    def __init__(self, settings: MongoDbSettings) -> None:
        self.timeout_s = settings.connect_timeout_s
        self._client: MongoClient[Document] = MongoClient(**client_options(settings))
        # At the primary, whatever the URI says: a read that starts after an ack sees the write.
        self.database: Database[Document] = self._client.get_database(
            database_name(settings), read_preference=ReadPreference.PRIMARY
        )
        self._has_schema = False
        self._closed = False
        try:
            server = self._hello()
        except BaseException:
            self._client.close()
            raise
        # A server on its own keeps no history to read a snapshot of.
        self._has_snapshots = "setName" in server or server.get("msg") == "isdbgrid"

    def close(self) -> None:
        """Closes all connections: calls that are under way raise `StorageUnavailableError`."""
        self._closed = True
        self._client.close()

    def probe(self) -> None:
        """Makes one round trip to the primary."""
        self._hello()

    def collection(self, name: str) -> Collection[Document]:
        """Returns a collection.

        Raises:
            SchemaMismatchError: the database was never set up: a write would make a collection without indexes.
        """
        if not self._has_schema:
            with translated_errors(), pymongo.timeout(self.timeout_s):
                schema.check_recorded(self.database)
            self._has_schema = True
        return self.database[name]

    def start_session(self) -> ClientSession:
        """Returns a session, all of whose reads are of one snapshot where the server offers that."""
        if self._closed:
            raise StorageUnavailableError("the storage is closed")
        with translated_errors():
            return self._client.start_session(snapshot=self._has_snapshots)

    def end(self, session: ClientSession) -> None:
        """Ends what a session runs at the server, from any thread. Raises `StorageError` where it cannot be asked."""
        with translated_errors(), pymongo.timeout(self.timeout_s):
            self._client.admin.command("killSessions", [session.session_id])

    def _hello(self) -> Mapping[str, Any]:
        with translated_errors(), pymongo.timeout(self.timeout_s):
            answer: Mapping[str, Any] = self.database.client.admin.command("hello")
            return answer
