"""The program `provgate-gateway`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any, Final

import click

from provgate_broker.errors import TopologyError
from provgate_broker.session import AmqpParameters
from provgate_broker.settings import SECTION as RABBITMQ_SECTION
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology import RangePolicy
from provgate_config import ConfigDocument, ConfigurationError, load_section, setting_options
from provgate_config.logs import log_level_option, set_up_logging
from provgate_config.ready_file import write_ready_file
from provgate_gateway.server import Backends, Gateway, ListenError
from provgate_gateway.settings import SECTION, GatewaySettings
from provgate_storage.errors import SchemaMismatchError
from provgate_storage.local import LocalStorage
from provgate_storage.registry import UnknownStorageError, get_provenance_storage

logger = logging.getLogger(__name__)

_ROOT: Final = "provenance"


@click.command(context_settings={"max_content_width": 120})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file; PROVGATE_CONFIG or SWH_CONFIG_FILENAME where not given.",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to write the address to once calls are taken.",
)
@log_level_option
@setting_options(GatewaySettings, "PROVGATE_GATEWAY")
@setting_options(RabbitMqSettings, "PROVGATE", only=("url", "topology"))
@click.pass_context
def main(context: click.Context, /, config: Path | None, ready_file: Path | None, log_level: str, **_: Any) -> None:
    """Serve provgate.v1.ProvenanceStorage over gRPC.

    Writes go to the workers over RabbitMQ, reads come from the local storage. Broker and storage are those of
    the section provenance.rabbitmq of the configuration file, which workers and gateway share; what is set here
    is the section provenance.gateway.

    SIGTERM and SIGINT let calls in flight finish, for as long as --grace says.
    """
    set_up_logging(log_level)
    document = ConfigDocument.load(config)
    for warning in document.warnings:
        logger.warning("%s", warning)
    settings = load_section(context, GatewaySettings, document.section(SECTION), f"{_ROOT}.{SECTION}")
    backends = _backends(document, settings)
    try:
        asyncio.run(_run(Gateway(settings, backends), ready_file))
    except (ListenError, SchemaMismatchError, TopologyError) as error:
        raise click.ClickException(str(error)) from error


async def _run(gateway: Gateway, ready_file: Path | None) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)

    def on_serving(address: str) -> None:
        logger.info("serving on %s", address)
        if ready_file is not None:
            write_ready_file(ready_file, address)

    await gateway.run(on_serving)
    logger.info("stopped")


def _backends(document: ConfigDocument, settings: GatewaySettings) -> Backends:
    path = f"{_ROOT}.{RABBITMQ_SECTION}"
    rabbitmq = load_section(click.get_current_context(), RabbitMqSettings, document.section(RABBITMQ_SECTION), path)
    existing = rabbitmq.topology == "existing"
    try:
        parameters = AmqpParameters(rabbitmq.url, rabbitmq.heartbeat_s)
    except ValueError as error:
        raise ConfigurationError(f"{path}.url: {error}") from error
    try:
        policy = RangePolicy.of(rabbitmq.ranges)
    except ValueError as error:
        raise ConfigurationError(f"{path}.ranges.{error}") from error
    storage = None if existing else _storage(settings, rabbitmq)
    return Backends(parameters, policy, storage, sum_replies=existing)


def _storage(settings: GatewaySettings, rabbitmq: RabbitMqSettings) -> LocalStorage:
    section = SECTION if settings.storage_config is not None else RABBITMQ_SECTION
    path = f"{_ROOT}.{section}.storage_config"
    config = settings.storage_config if settings.storage_config is not None else rabbitmq.storage_config
    if "cls" not in config:
        raise ConfigurationError(f"{path}.cls: Object missing required field `cls`")
    # One connection more for the probe of the health service.
    connections = {"read_connections": settings.unary_reads + 1, "stream_connections": settings.streamed_reads}
    try:
        storage = get_provenance_storage(**{**connections, **config})
    except UnknownStorageError as error:
        raise ConfigurationError(f"{path}.cls: {error}") from error
    except ConfigurationError as error:
        # It starts with `storage_config`: a storage does not know in which section it is configured.
        raise ConfigurationError(f"{_ROOT}.{section}.{error}") from error
    if not isinstance(storage, LocalStorage):
        raise ConfigurationError(f"{path}.cls: {config['cls']} holds no data itself: name the workers' database")
    return storage


if __name__ == "__main__":
    sys.exit(main())
