"""The subjects of the benchmark: the stack, and simpler systems in the same servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

import yaml

from bench.databases.database import Database
from bench.databases.mongodb import MongoDbDatabase
from bench.databases.postgresql import PostgreSqlDatabase
from bench.limit.pipeline import Pipeline, consumers
from bench.measure.clients import PipelineWriter, StorageWriter, Writer
from provgate_stack.stack import Stack

GATEWAY: Final = "gateway"
GATEWAYS: Final = "two gateways"
DIRECT: Final = "direct"
LIMIT: Final = "limit"
HABITS: Final = "habits"

# Measured on a 2-core machine, medians of 7 rounds, thousands of contents / relations a second, by programs and entries
# of a package: 1 of 10,000 224 / 145; 2 of 10,000 328 / 206, 5,000 291 / 194, 2,000 242 / 177, 1,000 223 / 153; 3 of
# 10,000 305 / 189; 4 of 10,000 298 / 196. 4 or 8 ranges instead of 16, rows that are not sorted, one package a
# transaction: within the noise, but that small packages, one a transaction, take twice the CPU time.
_CONSUMERS: Final = 2
_LIMIT_ENTRIES: Final = 10_000

# As the reference: a package, a transaction and a statement for 100 entries.
_HABITS_ENTRIES: Final = 100

_DATABASES: Final[dict[str, Callable[[str], Database]]] = {
    "postgresql": PostgreSqlDatabase,
    "mongodb": MongoDbDatabase,
}


@dataclass(frozen=True)
class Subject:
    """A system that is measured.

    Attributes:
        name: its name.
        writers: the writers of the clients, assigned in turn.
        database: the database of its rows.
    """

    name: str
    writers: Sequence[Writer]
    database: Database


class Subjects:
    """The subjects in the servers of a stack, each in its own database; set up on first use.

    Not thread-safe. A context manager that ends what it started.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._opened = ExitStack()
        rabbitmq = yaml.safe_load(stack.config.read_text(encoding="utf-8"))["provenance"]["rabbitmq"]
        self._amqp_url: str = rabbitmq["url"]
        self.database = self._opened.enter_context(
            _DATABASES[rabbitmq["storage_config"]["cls"]](rabbitmq["storage_config"]["db"])
        )
        self._found: dict[str, Subject] = {}

    def __enter__(self) -> Self:
        self.database.quiet()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all subjects but the gateway. Idempotent."""
        self._opened.close()

    def get(self, name: str) -> Subject:
        """Returns the subject of a name."""
        if name not in self._found:
            self._found[name] = self._set_up(name)
        return self._found[name]

    def _set_up(self, name: str) -> Subject:
        if name == GATEWAY:
            return Subject(name, [_client_of(self._stack.address)], self.database)
        if name == GATEWAYS:
            addresses = [self._stack.address, self._stack.start_gateway().address]
            return Subject(name, [_client_of(address) for address in addresses], self.database)
        database = self._opened.enter_context(self.database.beside(f"bench_{name}"))
        if name == DIRECT:
            return Subject(name, [StorageWriter({**database.storage_config, "write_connections": 1})], database)
        return Subject(name, [PipelineWriter(self._pipeline(name, database))], database)

    def _pipeline(self, name: str, database: Database) -> Pipeline:
        entries = _LIMIT_ENTRIES if name == LIMIT else _HABITS_ENTRIES
        pipeline = Pipeline(
            name,
            self._amqp_url,
            database.storage_config["db"],
            package_entries=entries,
            batch_entries=entries,
            copies=name == LIMIT,
            processes=_CONSUMERS,
        )
        self._opened.enter_context(consumers(pipeline, self._stack.path))
        return pipeline


def _client_of(address: str) -> StorageWriter:
    return StorageWriter({"cls": "grpc", "url": address})
