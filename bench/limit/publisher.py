"""The publisher: splits entries by range, packs and publishes them, and waits for their replies."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgpack
import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from bench.limit.pipeline import RANGE_COUNT, Pipeline
from bench.writes.loads import Write
from provgate_storage import EntityType, RelationType
from provgate_storage.rows.rows import LOCATION

_SLICE_ENTRIES: Final = 100_000
_RANGES: Final = [byte * RANGE_COUNT // 256 for byte in range(256)]

Row = tuple[Any, ...]


class Publisher:
    """One client of a pipeline. Not thread-safe."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._packer = msgpack.Packer(datetime=True)
        self._connection = pika.BlockingConnection(parameters(pipeline))
        self._channel = self._connection.channel()
        declare(self._channel, pipeline)
        self._replies: str = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.basic_consume(self._replies, self._count, auto_ack=True)
        self._missing = 0

    def write(self, write: Write) -> None:
        """Returns when everything is committed."""
        entries = _entries(write)
        while piece := list(islice(entries, _SLICE_ENTRIES)):
            self._publish(write.table, piece)
        while self._missing:
            self._connection.process_data_events(time_limit=None)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _publish(self, table: str, entries: list[Row]) -> None:
        properties = pika.BasicProperties(delivery_mode=2, type=table, reply_to=self._replies)
        for number, rows in enumerate(_split(table, entries)):
            queue = self._pipeline.queue(number)
            for start in range(0, len(rows), self._pipeline.package_entries):
                package = rows[start : start + self._pipeline.package_entries]
                self._missing += len(package)
                self._channel.basic_publish("", queue, self._packer.pack({"data": package}), properties)

    def _count(
        self, _channel: BlockingChannel, _method: Basic.Deliver, _properties: BasicProperties, body: bytes
    ) -> None:
        self._missing -= int(body)


def parameters(pipeline: Pipeline) -> pika.URLParameters:
    """Returns how to reach the broker."""
    found = pika.URLParameters(pipeline.amqp_url)
    # A consumer that waits for the database, and a publisher between two runs, read nothing.
    found.heartbeat = 0
    return found


def declare(channel: BlockingChannel, pipeline: Pipeline) -> None:
    """Declares the queues: durable and replicated, as the stack's are."""
    for number in range(RANGE_COUNT):
        arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        channel.queue_declare(pipeline.queue(number), durable=True, arguments=arguments)


def _entries(write: Write) -> Iterator[Row]:
    data = write.data
    if write.table == LOCATION:
        return ((path,) for path in data)
    if write.table == EntityType.REVISION:
        return ((id, known.date, known.origin) for id, known in data.items())
    if write.table in tuple(RelationType):
        return ((src, row.dst, row.path) for src, rows in data.items() for row in rows)
    return iter(data.items())


def _split(table: str, entries: list[Row]) -> list[list[Row]]:
    ranges: list[list[Row]] = [[] for _ in range(RANGE_COUNT)]
    if table == LOCATION:
        for row in entries:
            ranges[zlib.crc32(row[0]) % RANGE_COUNT].append(row)
    else:
        for row in entries:
            ranges[_RANGES[row[0][0]]].append(row)
    return ranges
