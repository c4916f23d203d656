"""What ends a worker program."""

from __future__ import annotations

import click


class WorkerError(click.ClickException):
    """The base of what this package raises. A command that ends with it prints the text and exits with 1."""


class FatalError(WorkerError):
    """Going on is of no use until somebody changes something: the schema, the queues, the settings."""


class StoppedError(WorkerError):
    """The program was told to stop before it was ready."""
