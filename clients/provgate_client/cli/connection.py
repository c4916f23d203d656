"""From flags, environment and file to an open storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from provgate_client.adapter import GrpcSettings, ProvenanceStorageGrpc
from provgate_client.adapter.settings import SECTION, SECTION_PATH
from provgate_client.cli.interrupt import interruptible
from provgate_client.cli.output import printable
from provgate_config import ConfigDocument, ConfigurationError, load_section
from provgate_config.options import option_sources
from provgate_config.source import DEFAULT
from provgate_storage import RABBITMQ_INSTEAD


class Connection:
    """The way to the gateway that the command line names. Nothing is read before it is opened.

    Args:
        context: of the command that has the options of `GrpcSettings`.
        config: the configuration file; None for the one that the environment names.
    """

    def __init__(self, context: click.Context, config: Path | None) -> None:
        self._context = context
        self._config = config

    @contextmanager
    def open(self, *, named: bool = False) -> Iterator[ProvenanceStorageGrpc]:
        """Gives an open storage, which raises where a write could be tried again, and which Ctrl-C closes.

        Args:
            named: whether to say first, on standard error, which gateway that is, and what names it.

        Raises:
            ConfigurationError: the configuration cannot be read, or is not that of a client.
            GatewayUnavailableError: no gateway answers.
        """
        document = ConfigDocument.load(self._config, profile=True)
        for warning in document.warnings:
            click.echo(f"Warning: {warning}", err=True)
        settings = load_section(self._context, GrpcSettings, grpc_section(document.section(SECTION)), SECTION_PATH)
        if named:
            over, file = option_sources(self._context, GrpcSettings), document.sources(SECTION)
            source = over.get("url") or file.get(("url",), DEFAULT)
            click.echo(f"gateway: {printable(settings.url)} ({source})", err=True)
        storage = ProvenanceStorageGrpc(**msgspec.structs.asdict(settings) | {"raise_on_failure": True})
        with storage, interruptible(storage):
            yield storage


def grpc_section(section: dict[str, Any]) -> dict[str, Any]:
    """Returns the section of a client without its `cls`. Raises `ConfigurationError` where that is not grpc."""
    cls = section.pop("cls", "grpc")
    if cls == "grpc":
        return section
    if cls == "rabbitmq":
        raise ConfigurationError(f"{SECTION_PATH}.cls: {RABBITMQ_INSTEAD}")
    instead = f"set {SECTION_PATH} to {{cls: grpc, url: HOST:PORT}}, the address of the gateway"
    raise ConfigurationError(f"{SECTION_PATH}.cls: {cls!r} is not reached by this program: {instead}")


pass_connection = click.make_pass_decorator(Connection)
