"""Logging of a program: to standard error, one line a record, as text or as JSON (docs/logs.md)."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import click

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s[%(process)d] %(action)s: %(message)s"

# What ends a line, for whoever reads it, and what a terminal obeys.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_INDENT: Final = "    "


class TextFormatter(logging.Formatter):
    """Makes a line of a record. A traceback follows in lines that are indented, as no record is.

    Control characters are escaped, since texts from outside are in messages: what somebody sends may look like a record
    only within one.
    """

    def __init__(self) -> None:
        # A library's record has no action.
        super().__init__(_FORMAT, defaults={"action": "-"})

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is that of the base
        """Returns the line."""
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Returns the lines of a traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Returns the lines of a stack."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(_INDENT + _escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="PROVGATE_LOG_LEVEL",
    show_envvar=True,
    show_default=True,
    help="What is logged, to standard error.",
)
"""The option of every program that runs for long."""

TEXT: Final = "text"
JSON: Final = "json"

log_format_option = click.option(
    "--log-format",
    type=click.Choice([TEXT, JSON]),
    default=TEXT,
    envvar="PROVGATE_LOG_FORMAT",
    show_envvar=True,
    show_default=True,
    help="How it is logged: as lines of text, or as one JSON object a line.",
)
"""Stands beside `log_level_option`."""


def set_up_logging(level: str, log_format: str = TEXT) -> None:
    """Has records of `level` and above logged. Called once, when a program starts.

    Args:
        level: one that `log_level_option` takes.
        log_format: one that `log_format_option` takes; JSON needs the extra `telemetry`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(log_format))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Whoever owns a connection says what becomes of it; pika would say it again, with a traceback.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def _formatter(log_format: str) -> logging.Formatter:
    if log_format == TEXT:
        return TextFormatter()
    # Here, since the client is installed without its library.
    from provgate_runtime.json_log import JsonLineFormatter

    return JsonLineFormatter()
