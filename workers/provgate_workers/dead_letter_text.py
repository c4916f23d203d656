"""Dead letters as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from provgate_broker.aside import DeadLetter
from provgate_broker.errors import BrokerError
from provgate_broker.topology import Operation, WriteMethod, parse_binding_key
from provgate_broker.wire import claimed_row_count, decode_package
from provgate_storage.rows import Row
from provgate_storage.values import to_date


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Returns what tells a dead letter apart from others."""
    return {
        "id": letter.id,
        "time": letter.time,
        "reason": letter.reason,
        "message": letter.message,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "redelivered_count": letter.redelivered_count,
        "row_count": claimed_row_count(letter.delivery.body),
        "body_bytes": len(letter.delivery.body),
    }


def details(letter: DeadLetter) -> dict[str, Any]:
    """Returns all that there is of a dead letter. Ids are hexadecimal, paths text with what is not UTF-8 escaped."""
    delivery = letter.delivery
    return summary(letter) | {
        "content_type": delivery.content_type,
        "correlation_id": delivery.correlation_id,
        "reply_to": delivery.reply_to,
        "headers": _plain(delivery.headers),
        **_content(letter),
    }


def _content(letter: DeadLetter) -> dict[str, Any]:
    try:
        operation, _ = parse_binding_key(letter.routing_key)
        rows = decode_package(letter.delivery.body, operation)
    except BrokerError as error:
        return {"fault": str(error), "body_hex": letter.delivery.body.hex()}
    return {"rows": [_plain(_with_names(row, operation)) for row in rows]}


def _with_names(row: Row, operation: Operation) -> Any:
    """Returns a row with its dates as dates, and what is known of a revision by name."""
    match operation.method:
        case WriteMethod.CONTENT_ADD | WriteMethod.DIRECTORY_ADD:
            entry_id, date = row
            return entry_id, _date(date)
        case WriteMethod.REVISION_ADD:
            entry_id, date, origin = row
            return entry_id, {"date": _date(date), "origin": origin}
    return row


def _date(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_date(microseconds)


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return value.hex() if len(value) == 20 else value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
