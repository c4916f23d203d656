"""The clients of an open storage, one for reads and one for writes, and the limits of concurrent calls."""

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
    """Limits how many calls of one kind run at once. Thread-safe.

    pymongo's own pool is one for all kinds: streams that fill it would make writes wait.

    Args:
        count: the limit.
        wait_s: how long `acquire` waits for a slot, in seconds.
    """

    def __init__(self, count: int, wait_s: float) -> None:
        self._count = count
        self._wait_s = wait_s
        self._free = threading.Semaphore(count)

    def acquire(self) -> None:
        """Takes a slot; `release` frees it. Raises `StorageBusyError` if none became free in time."""
        if not self._free.acquire(timeout=self._wait_s):
            raise StorageBusyError(f"no connection became free within {self._wait_s:g} s; the limit is {self._count}")

    def release(self) -> None:
        """Frees a slot that `acquire` took."""
        self._free.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds a slot during the block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


class Connection:
    """An open database. Thread-safe; pymongo makes connections when they are needed, and again when they are lost.

    Attributes:
        timeout_s: how long a call waits for a primary, in seconds.
        database: for reads.
        written: the same database, for writes.
        write_slots, read_slots, stream_slots: the limits of writes, reads by id and streamed reads.

    Raises:
        StorageUnavailableError: no primary was found in time.
    """

    def __init__(self, settings: MongoDbSettings) -> None:
        self.timeout_s = settings.connect_timeout_s
        self.write_slots = Slots(settings.write_connections, settings.connection_wait_s)
        self.read_slots = Slots(settings.read_connections, settings.connection_wait_s)
        self.stream_slots = Slots(settings.stream_connections, settings.stream_wait_s)
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
            with translated_errors(), pymongo.timeout(self.timeout_s):
                hello: Mapping[str, Any] = self._reads.admin.command("hello")
        except BaseException:
            self.close()
            raise
        # A standalone server keeps no history to read a snapshot of.
        self._has_snapshots = "setName" in hello or hello.get("msg") == "isdbgrid"

    def close(self) -> None:
        """Closes all connections: running calls raise `StorageUnavailableError`."""
        self._closed = True
        self._reads.close()
        self._writes.close()

    def probe(self) -> None:
        """Reads at the primary: a server whose storage engine has failed may still answer `hello`."""
        with translated_errors(), pymongo.timeout(self.timeout_s):
            schema.recorded_range_counts(self.database)

    def read_from(self, name: str) -> Collection[Document]:
        """Returns a collection to read from. Raises `SchemaMismatchError` if the database was never set up."""
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
        """Gives the database over a client of its own without a time limit, for building indexes."""
        with _client(self._settings, answer_timeout_s=0) as client:
            yield client.get_database(self.written.name, read_preference=ReadPreference.PRIMARY)

    def start_session(self) -> ClientSession:
        """Returns a session whose reads are of one snapshot where the server offers that."""
        if self._closed:
            raise StorageUnavailableError("the storage is closed")
        with translated_errors():
            return self._reads.start_session(snapshot=self._has_snapshots)

    def end(self, session: ClientSession) -> None:
        """Ends what a session runs at the server, from any thread. Raises `StorageError` if that fails."""
        with translated_errors(), pymongo.timeout(self.timeout_s):
            self._reads.admin.command("killSessions", [session.session_id])

    def _require_schema(self) -> None:
        if not self._has_schema:
            with translated_errors(), pymongo.timeout(self.timeout_s):
                schema.check_recorded(self.database)
            self._has_schema = True


def _client(settings: MongoDbSettings, answer_timeout_s: float) -> MongoClient[Document]:
    # It connects at its first use: a gateway never writes.
    return MongoClient(**client_options(settings, answer_timeout_s), connect=False)
