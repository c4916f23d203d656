"""A consumer program: receives packages, writes them in batches, and replies with counts."""

from __future__ import annotations

import io
import sys
from collections import deque
from pathlib import Path
from typing import Final, TypeAlias

import msgpack
import pika
import psycopg2
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties
from psycopg2.extras import execute_values

from bench.limit.copying import document, encode
from bench.limit.pipeline import RANGE_COUNT, Pipeline
from bench.limit.publisher import declare, parameters
from provgate_storage.postgresql.schema import TABLES, Table

_PREFETCH: Final = 10

# psycopg2 reads a document in pieces of this size: in one.
_WHOLE: Final = 1 << 24

# How msgpack gives a timestamp: https://msgpack-python.readthedocs.io/en/latest/api.html
_NANOSECONDS: Final = 2
_DATETIME: Final = 3

Delivery: TypeAlias = tuple[int, str, str, bytes]
"""Delivery tag, table, reply queue, body."""


class Consumer:
    """The consumer of the ranges from `number` on, one of each `pipeline.processes` ranges."""

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        self._pipeline = pipeline
        self._database = psycopg2.connect(pipeline.dsn)
        self._cursor = self._database.cursor()
        self._staged: set[str] = set()
        self._waiting: deque[Delivery] = deque()
        self._connection = pika.BlockingConnection(parameters(pipeline))
        self._channel = self._connection.channel()
        declare(self._channel, pipeline)
        self._channel.basic_qos(prefetch_count=_PREFETCH)
        for queue in range(number, RANGE_COUNT, pipeline.processes):
            self._channel.basic_consume(pipeline.queue(queue), self._take)

    def run(self) -> None:
        """Works until the process is killed."""
        while True:
            self._connection.process_data_events(time_limit=None)
            while self._waiting:
                self._copy() if self._pipeline.copies else self._insert()

    def _take(self, _channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._waiting.append((method.delivery_tag or 0, properties.type or "", properties.reply_to or "", body))

    def _copy(self) -> None:
        """Writes waiting packages, up to a bound, in one transaction."""
        taken: list[tuple[int, str, int]] = []
        packages: dict[str, list[list[bytes]]] = {}
        while self._waiting and sum(count for _, _, count in taken) < self._pipeline.batch_entries:
            tag, name, reply_to, body = self._waiting.popleft()
            encoded = encode(TABLES[name], msgpack.unpackb(body, timestamp=_NANOSECONDS)["data"])
            taken.append((tag, reply_to, len(encoded)))
            packages.setdefault(name, []).append(encoded)
        for name, rows in packages.items():
            self._merge(TABLES[name], rows)
        self._finish(taken)

    def _merge(self, table: Table, packages: list[list[bytes]]) -> None:
        if table.name not in self._staged:
            columns = ", ".join(f"{name} {kind.value}" for name, kind in table.columns)
            self._cursor.execute(f"CREATE TEMPORARY TABLE new_{table.name} ({columns}) ON COMMIT DELETE ROWS")
            self._staged.add(table.name)
        rows = io.BytesIO(document(table, packages))
        self._cursor.copy_expert(f"COPY new_{table.name} FROM STDIN (FORMAT binary)", rows, size=_WHOLE)
        self._cursor.execute(_merge(table, f"SELECT * FROM new_{table.name}"))

    def _finish(self, taken: list[tuple[int, str, int]]) -> None:
        self._database.commit()
        for tag, reply_to, count in taken:
            self._channel.basic_publish("", reply_to, b"%d" % count)
            self._channel.basic_ack(tag)

    def _insert(self) -> None:
        """Writes one package with one statement."""
        tag, name, reply_to, body = self._waiting.popleft()
        table = TABLES[name]
        rows = [row[: len(table.columns)] for row in msgpack.unpackb(body, timestamp=_DATETIME)["data"]]
        execute_values(self._cursor, _merge(table, "VALUES %s"), rows, page_size=self._pipeline.package_entries)
        self._finish([(tag, reply_to, len(rows))])


def _merge(table: Table, source: str) -> str:
    names = ", ".join(name for name, _ in table.columns)
    return f"INSERT INTO {table.name} AS stored ({names}) {source} ON CONFLICT {table.on_conflict}"


def main(pipeline_file: str, number: str, _option: str, ready_file: str) -> None:
    """Runs the consumer of that number."""
    consumer = Consumer(Pipeline.load(Path(pipeline_file)), int(number))
    Path(ready_file).touch()
    consumer.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
