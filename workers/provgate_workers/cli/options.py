"""The options that all commands of `provgate-workers` share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from provgate_broker.settings import PATH, SECTION, RabbitMqSettings
from provgate_runtime import ConfigDocument, load_section
from provgate_runtime.logs import log_format_option, log_level_option, set_up_logging

F = TypeVar("F", bound=Callable[..., Any])

ENV_PREFIX: Final = "PROVGATE_WORKERS"

logger = logging.getLogger(__name__)


def program_options(command: F) -> F:
    """Adds the options for the configuration file and the log to a command."""
    command = log_level_option(log_format_option(command))
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The configuration file. Without it, the one that PROVGATE_CONFIG or SWH_CONFIG_FILENAME names.",
    )(command)


def loaded_settings(context: click.Context) -> RabbitMqSettings:
    """Sets the log up and returns the settings of a command with `program_options` and `setting_options`.

    Raises:
        ConfigurationError: they are wrong.
    """
    set_up_logging(context.params["log_level"], context.params["log_format"])
    document = ConfigDocument.load(context.params["config_path"])
    for warning in document.warnings:
        logger.warning("%s", warning, extra={"action": "config.ignore"})
    return load_section(context, RabbitMqSettings, document.section(SECTION), PATH)
