"""Logging of a program: to standard error, one line a record."""

from __future__ import annotations

import logging
from typing import Final

import click

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"

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


def set_up_logging(level: str) -> None:
    """Has records of `level` and above logged. Called once, when a program starts."""
    logging.basicConfig(level=level.upper(), format=_FORMAT)
    # Whoever owns a connection says what becomes of it; pika would say it again, with a traceback.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
