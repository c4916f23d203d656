"""A consumer program: takes packages, writes each in a transaction, and counts it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, Final

import msgpack
import pika
import psycopg2
from psycopg2.extras import execute_values

from bench.limit.copying import document
from bench.limit.pipeline import RANGE_COUNT, Pipeline
from bench.limit.publisher import declare, parameters
from provgate_storage.postgresql.tables import TABLES, Table

_PREFETCH: Final = 10
_WHOLE: Final = 1 << 24
_NANOSECONDS: Final = 2
_DATETIME: Final = 3


class Consumer:
    """The consumer of every so-manieth range."""

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        self._pipeline = pipeline
        self._database = psycopg2.connect(pipeline.dsn)
        self._cursor = self._database.cursor()
        self._staged: set[str] = set()
        self._channel = pika.BlockingConnection(parameters(pipeline)).channel()
        declare(self._channel, pipeline)
        self._channel.basic_qos(prefetch_count=_PREFETCH)
        for queue in range(number, RANGE_COUNT, pipeline.processes):
            self._channel.basic_consume(pipeline.queue(queue), self._take)

    def run(self) -> None:
        """Works until the process is killed."""
        self._channel.start_consuming()

    def _take(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        table = TABLES[properties.type]
        count = self._copy(table, body) if self._pipeline.copies else self._insert(table, body)
        self._database.commit()
        self._channel.basic_publish("", properties.reply_to, b"%d" % count)
        self._channel.basic_ack(method.delivery_tag)

    def _copy(self, table: Table, body: bytes) -> int:
        rows = msgpack.unpackb(body, timestamp=_NANOSECONDS)["data"]
        if table.name not in self._staged:
            columns = ", ".join(f"{name} {kind.value}" for name, kind in table.columns)
            self._cursor.execute(f"CREATE TEMPORARY TABLE new_{table.name} ({columns}) ON COMMIT DELETE ROWS")
            self._staged.add(table.name)
        self._cursor.copy_expert(
            f"COPY new_{table.name} FROM STDIN (FORMAT binary)", io.BytesIO(document(table, rows)), size=_WHOLE
        )
        self._cursor.execute(_merge(table, f"SELECT * FROM new_{table.name}"))
        return len(rows)

    def _insert(self, table: Table, body: bytes) -> int:
        rows = msgpack.unpackb(body, timestamp=_DATETIME)["data"]
        values = [row[: len(table.columns)] for row in rows]
        execute_values(self._cursor, _merge(table, "VALUES %s"), values, page_size=self._pipeline.package_entries)
        return len(rows)


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
