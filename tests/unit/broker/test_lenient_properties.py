from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec
from pika.spec import BasicProperties

from provgate_broker.amqp.pika_workarounds import LenientProperties


def encoded(table: bytes) -> bytes:
    """Returns properties with a content type, a header table as given, and a correlation id."""
    flags = BasicProperties.FLAG_CONTENT_TYPE | BasicProperties.FLAG_HEADERS | BasicProperties.FLAG_CORRELATION_ID
    return struct.pack(">H", flags) + b"\x04type" + struct.pack(">I", len(table)) + table + b"\x02id"


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return table


UNDECODABLE = {
    "a timestamp that is too late": b"\x01tT" + b"\xff" * 8,
    "not a number": b"\x01td" + struct.pack(">d", float("nan")),
    "infinity": b"\x01tf" + struct.pack(">f", float("inf")),
    "an unknown type": b"\x01t?",
    "too deep": nested(3000),
}


@pytest.mark.parametrize("table", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_headers_that_cannot_be_decoded_are_none_and_the_rest_stays(table: bytes) -> None:
    with pytest.raises(Exception):  # noqa: B017  # of many kinds, which is the point
        BasicProperties().decode(encoded(table))
    properties = LenientProperties()
    properties.decode(encoded(table))
    assert (properties.content_type, properties.headers, properties.correlation_id) == ("type", {}, "id")


def test_other_headers_are_decoded() -> None:
    properties = LenientProperties()
    properties.decode(encoded(b"\x01tt\x01"))
    assert properties.headers == {"t": True}


@given(st.binary(max_size=60))
def test_any_table_is_decoded_or_dropped(table: bytes) -> None:
    properties = LenientProperties()
    properties.decode(encoded(table))
    assert isinstance(properties.headers, dict)


def test_pika_uses_the_class_for_what_comes_in() -> None:
    header = frame.Header(1, 5, BasicProperties(content_type="type"))
    _, decoded = frame.decode_frame(header.marshal())
    assert isinstance(decoded, frame.Header)
    assert isinstance(decoded.properties, LenientProperties)
    assert spec.props[BasicProperties.INDEX] is LenientProperties
