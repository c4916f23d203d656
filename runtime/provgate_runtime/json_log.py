"""Log records as JSON. Needs the extra `telemetry`, so it is imported only if JSON is asked for."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter


class JsonLineFormatter(JsonFormatter):
    """Formats a record as one line of JSON: time, level, logger, process, action, message, and its other fields.

    A library's record has no action. Bytes, which are ids, are in hexadecimal. Fields that are None are left out.
    """

    def __init__(self) -> None:
        super().__init__("%(message)s", json_default=_plain)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Puts the fields that every record has first."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["process"] = record.process
        if hasattr(record, "action"):
            log_data["action"] = record.action
        super().add_fields(log_data, record, message_dict)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Drops the fields that are None."""
        return {name: value for name, value in log_data.items() if value is not None}


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
