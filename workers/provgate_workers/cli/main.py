"""The command line of `provgate-workers`."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import click
from prometheus_client import CollectorRegistry

from provgate_broker.settings import METRICS_LISTEN, PATH, RabbitMqSettings
from provgate_runtime import setting_options
from provgate_runtime.options import keep_names_whole
from provgate_runtime.watch.port import WatchAddress, WatchPortError, watched
from provgate_runtime.watch.statsd import statsd_address
from provgate_workers.cli.dlq import dlq
from provgate_workers.cli.options import ENV_PREFIX, loaded_settings, program_options
from provgate_workers.errors import FatalError, StoppedError
from provgate_workers.metrics import ProgramMetrics
from provgate_workers.program.preparation import prepare, set_up
from provgate_workers.program.readiness import ProgramReadiness
from provgate_workers.program.shared_metrics import shared_metrics
from provgate_workers.program.stopping import completed, run_until_signal
from provgate_workers.program.supervisor import Supervisor
from provgate_workers.settings import configuration_of

logger = logging.getLogger(__name__)

keep_names_whole()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="provgate")
def main() -> None:
    """Consume the packages of a provgate broker and store them in the local storage.

    Settings come from the section `provenance.rabbitmq` of the configuration file, which also names the database:

    \b
        provenance:
          rabbitmq:
            url: amqp://guest:guest@localhost:5672/%2f
            storage_config:
              cls: postgresql
              db: {host: localhost, dbname: provenance, user: provenance}

    Environment variables override the file, options override both.

    Exit codes: 0 if done or stopped by a signal, 1 if the command cannot do its work (the message says why), 2 for a
    wrong configuration.
    """  # noqa: D301  # click looks for the character, not for the two


@main.command()
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX)
@click.pass_context
def setup(context: click.Context, /, **_options: object) -> None:
    """Create schema, exchanges and queues.

    You can run it again at any time: what exists stays. It puts a changed range count (`provenance.rabbitmq.ranges`)
    into force, and refuses it while queues of the old count hold packages or have consumers. It waits for a database or
    a broker that cannot be reached.
    """
    configuration = configuration_of(loaded_settings(context))

    async def work(stop: asyncio.Event) -> None:
        if not await completed(set_up(configuration), stop):
            raise StoppedError("stopped before everything was set up")

    run_until_signal(work)
    logger.info("schema and topology are set up", extra={"action": "setup.done"})


@main.command()
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that is written when every consumer is registered, and removed at the end.",
)
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX)
@click.pass_context
def run(
    context: click.Context, /, ready_file: Path | None, log_level: str, log_format: str, **_options: object
) -> None:
    """Run the range workers until SIGTERM or SIGINT.

    The command sets an empty database up, and declares what is missing on the broker. Several programs may run, on one
    machine or on many: one of them serves a queue at a time, and another takes over when that one ends. The first
    signal finishes what is being stored and gives the rest back; a second signal ends the program at once.
    """
    configuration = configuration_of(loaded_settings(context))
    settings = configuration.settings
    address = WatchAddress(f"{PATH}.metrics_listen", settings.metrics_listen, METRICS_LISTEN)
    statsd = statsd_address(f"{PATH}.statsd", settings.statsd, os.environ)
    readiness = ProgramReadiness(len(configuration.assignments))
    registry = CollectorRegistry()
    with shared_metrics(registry) as shared:
        supervisor = Supervisor(
            configuration, log_level, log_format, ready_file, statsd, readiness, ProgramMetrics(registry), shared
        )

        async def work(stop: asyncio.Event) -> None:
            async with watched(address, registry, readiness.alive, readiness.ready):
                if await completed(prepare(configuration, readiness), stop):
                    readiness.prepared()
                    await supervisor.run(stop)

        try:
            run_until_signal(work, supervisor.kill)
        except WatchPortError as error:
            raise FatalError(str(error)) from error


main.add_command(dlq)
