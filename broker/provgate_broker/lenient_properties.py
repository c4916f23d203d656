"""Properties of messages whose headers pika cannot decode.

RabbitMQ delivers headers that pika's decoder raises at: a timestamp that no `datetime` can hold, tables in tables
without end. pika answers by dropping the connection, and the message comes back with the next one: a single
message would keep a process from all of its queues. Such headers are read as none.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from pika import spec
from pika.exceptions import AMQPError
from pika.spec import BasicProperties

_UNDECODABLE: Final = (AMQPError, ValueError, OverflowError, OSError, RecursionError, struct.error)
_FLAG_WORD_BYTES: Final = 2
_NO_HEADERS: Final = b"\x00\x00\x00\x00"


class LenientProperties(BasicProperties):
    """`BasicProperties` that lose their headers where these cannot be decoded."""

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Decodes properties, as pika calls it for each message that comes in."""
        try:
            return super().decode(encoded, offset)
        except _UNDECODABLE:
            return super().decode(_without_headers(encoded[offset:]), 0)


def use_lenient_properties() -> None:
    """Has all connections of this process decode properties so. pika looks the class up for each message."""
    spec.props[BasicProperties.INDEX] = LenientProperties


def _without_headers(encoded: bytes) -> bytes:
    """Returns encoded properties with an empty table for headers (AMQP 0-9-1, 4.2.6.1)."""
    (flags,) = struct.unpack_from(">H", encoded)
    start = _FLAG_WORD_BYTES
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    (table_bytes,) = struct.unpack_from(">I", encoded, start)
    return encoded[:start] + _NO_HEADERS + encoded[start + len(_NO_HEADERS) + table_bytes :]
