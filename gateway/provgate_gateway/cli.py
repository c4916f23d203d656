"""The program `provgate-gateway`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import click

from provgate_broker.amqp.pika_workarounds import log_network_errors_briefly
from provgate_broker.errors import TopologyError
from provgate_broker.settings import BROKER_FIELDS, RabbitMqSettings, amqp_parameters, range_policy
from provgate_broker.settings import PATH as RABBITMQ_PATH
from provgate_broker.settings import SECTION as RABBITMQ_SECTION
from provgate_gateway.rpc.handler_wrappers import log_vanished_clients_shortly
from provgate_gateway.server import Backends, Gateway, ListenError
from provgate_gateway.settings import SECTION, GatewaySettings
from provgate_runtime import ConfigDocument, load_section, setting_options
from provgate_runtime.logs import log_format_option, log_level_option, set_up_logging
from provgate_runtime.options import keep_names_whole
from provgate_runtime.program import collect_seldom, write_ready_file
from provgate_runtime.watch.port import WatchPortError
from provgate_runtime.watch.statsd import DurationSender, statsd_address
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import SchemaMismatchError
from provgate_storage.registry import local_storage

logger = logging.getLogger(__name__)

_ROOT: Final = "provenance"

keep_names_whole()


@click.command(context_settings={"max_content_width": 120})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file; default: PROVGATE_CONFIG or SWH_CONFIG_FILENAME.",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the address to this file when the gateway serves.",
)
@log_level_option
@log_format_option
@setting_options(GatewaySettings, "PROVGATE_GATEWAY")
@setting_options(RabbitMqSettings, "PROVGATE", only=(*BROKER_FIELDS, "topology"))
@click.pass_context
def main(
    context: click.Context, /, config: Path | None, ready_file: Path | None, log_level: str, log_format: str, **_: Any
) -> None:
    """Serve provgate.v1.ProvenanceStorage over gRPC.

    Writes go to the workers over RabbitMQ. Reads come from the local storage. Gateway and workers read both from the
    section provenance.rabbitmq of the configuration file, and the gateway reads provenance.gateway too. The options
    below override the file.

    On SIGTERM and SIGINT calls in flight have --grace seconds to finish.
    """
    set_up_logging(log_level, log_format)
    log_vanished_clients_shortly()
    collect_seldom()
    document = ConfigDocument.load(config)
    for warning in document.warnings:
        logger.warning("%s", warning, extra={"action": "config.ignore"})
    settings = load_section(context, GatewaySettings, document.section(SECTION), f"{_ROOT}.{SECTION}")
    backends = _backends(document, settings)
    statsd = statsd_address(f"{_ROOT}.{SECTION}.statsd", settings.statsd, os.environ)
    try:
        with DurationSender(statsd, "provgate.gateway") as durations:
            asyncio.run(_run(Gateway(settings, backends, durations.send), ready_file))
    except (ListenError, WatchPortError, SchemaMismatchError, TopologyError) as error:
        raise click.ClickException(str(error)) from error


async def _run(gateway: Gateway, ready_file: Path | None) -> None:
    log_network_errors_briefly()
    # A thread splits large messages. With Python's default of 5 ms the event loop would wait for it too long.
    sys.setswitchinterval(0.001)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)

    def on_serving(address: str) -> None:
        logger.info("serving on %s", address, extra={"action": "gateway.serve", "address": address})
        if ready_file is not None:
            write_ready_file(ready_file, address)

    await gateway.run(on_serving)
    logger.info("stopped", extra={"action": "gateway.stop"})


def _backends(document: ConfigDocument, settings: GatewaySettings) -> Backends:
    context = click.get_current_context()
    rabbitmq = load_section(context, RabbitMqSettings, document.section(RABBITMQ_SECTION), RABBITMQ_PATH)
    parameters, policy = amqp_parameters(rabbitmq), range_policy(rabbitmq)
    storage: LocalStorage | None = None
    if rabbitmq.topology == "own":
        own = settings.storage_config
        storage = local_storage(
            rabbitmq.storage_config if own is None else own,
            RABBITMQ_PATH if own is None else f"{_ROOT}.{SECTION}",
            # One connection is for the probe of the health service.
            read_connections=settings.unary_reads + 1,
            stream_connections=settings.by_id_reads + settings.listings,
            application_name="provgate-gateway",
        )
    return Backends(parameters, policy, rabbitmq, storage)


if __name__ == "__main__":
    sys.exit(main())
