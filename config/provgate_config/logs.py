"""Logging of a program: to standard error, one line a record, as text or as JSON (docs/logs.md)."""

from __future__ import annotations

import logging
from typing import Final

import click

from provgate_config.text_log import TextFormatter

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
    from provgate_config.json_log import JsonLineFormatter

    return JsonLineFormatter()
