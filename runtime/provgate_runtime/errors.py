"""The one error of a configuration."""

from __future__ import annotations

import click


class ConfigurationError(click.ClickException):
    """A setting is missing, unknown, of the wrong type or impossible.

    A command that ends with it exits with 2 and prints the text, which starts with the setting's path in the
    configuration file (`provenance.rabbitmq.prefetch_count`) or its flag, and never holds a secret's value.
    """

    exit_code = 2
