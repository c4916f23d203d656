"""Logs of a program: standard error, one line a record, as text or as JSON (docs/logs.md)."""

from __future__ import annotations

import logging
import re
from typing import Final

import click

TEXT: Final = "text"
JSON: Final = "json"

log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="PROVGATE_LOG_LEVEL",
    show_envvar=True,
    show_default=True,
    help="The lowest level of the records that are logged to standard error.",
)
"""An option of every long-running program."""

log_format_option = click.option(
    "--log-format",
    type=click.Choice([TEXT, JSON]),
    default=TEXT,
    envvar="PROVGATE_LOG_FORMAT",
    show_envvar=True,
    show_default=True,
    help="The format of the log: lines of text, or one JSON object a line.",
)
"""An option of every long-running program."""


def set_up_logging(level: str, log_format: str = TEXT) -> None:
    """Logs the records of `level` and above. A program calls it once, when it starts.

    Args:
        level: a value of `log_level_option`.
        log_format: a value of `log_format_option`; JSON needs the extra `telemetry`.
    """
    handler = logging.StreamHandler()
    if log_format == JSON:
        from provgate_runtime.json_log import JsonLineFormatter

        handler.setFormatter(JsonLineFormatter())
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # The owner of a connection logs its state; pika would log it again, with a traceback.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


# Line ends of any reader, and characters that control a terminal.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class TextFormatter(logging.Formatter):
    """Formats a record as one line. The lines of a traceback follow, indented.

    Control characters are escaped, because messages contain text from outside: it cannot pass for a record.
    """

    def __init__(self) -> None:
        # A library's record has no action.
        text = "%(asctime)s %(levelname)s %(name)s[%(process)d] %(action)s: %(message)s"
        super().__init__(text, defaults={"action": "-"})

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is that of the base
        """Returns the line."""
        return _escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line and those of the traceback."""
        line, *traceback = super().format(record).split("\n")
        return "\n".join([line, *(f"    {_escaped(each)}" for each in traceback)])


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
