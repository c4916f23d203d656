"""The command `provgate doctor`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from provgate_broker.errors import ConnectionLostError
from provgate_broker.settings import BROKER_FIELDS, RabbitMqSettings
from provgate_gateway.settings import GatewaySettings
from provgate_operations.doctor import broker as of_broker
from provgate_operations.doctor import database as of_database
from provgate_operations.doctor import gateway as of_gateway
from provgate_operations.doctor.certificates import certificate_files, certificate_findings
from provgate_operations.doctor.deployment import Broker, Deployment, read_deployment, version_findings
from provgate_operations.doctor.findings import Finding, Severity, broken, exit_code, in_daemon_thread, skipped
from provgate_runtime import ConfigurationError, setting_options
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import StorageError


async def examine(deployment: Deployment, timeout_s: float) -> list[Finding]:
    """Returns what every check finds.

    Broker, databases and gateway are asked at once; one that is away leaves the others alone.

    Args:
        deployment: what there is to check.
        timeout_s: how long each of them may take.
    """
    asked: list[Awaitable[list[Finding]]] = [
        _broker(deployment.broker, timeout_s),
        *(_database(where, storage, deployment, timeout_s) for where, storage in deployment.databases.items()),
        _gateway(deployment, timeout_s),
    ]
    if not deployment.databases:
        asked.append(_no_database())
    answers = await asyncio.gather(*asked)
    certificates = certificate_findings(certificate_files(deployment))
    return [*deployment.findings, *version_findings(), *chain.from_iterable(answers), *certificates]


async def _broker(broker: Broker | None, timeout_s: float) -> list[Finding]:
    if broker is None:
        checks = ("broker", *of_broker.DEPENDENT_CHECKS)
        return [skipped(check, "no broker is configured here") for check in checks]
    try:
        async with asyncio.timeout(timeout_s):
            facts = await of_broker.ask_broker(broker)
    except (ConnectionLostError, TimeoutError) as error:
        return of_broker.unreachable(broker, error)
    return list(of_broker.broker_findings(broker, facts))


async def _database(where: str, storage: LocalStorage, deployment: Deployment, timeout_s: float) -> list[Finding]:
    try:
        facts = await in_daemon_thread(lambda: of_database.ask_database(storage), timeout_s)
    except (StorageError, TimeoutError) as error:
        return of_database.unreachable(where, error)
    policy = None if deployment.broker is None else deployment.broker.policy
    return list(of_database.database_findings(where, facts, policy))


async def _no_database() -> list[Finding]:
    checks = ("database", *of_database.DEPENDENT_CHECKS)
    return [skipped(check, "no database is configured here that gateway or workers of ours use") for check in checks]


async def _gateway(deployment: Deployment, timeout_s: float) -> list[Finding]:
    client = of_gateway.client_of(deployment)
    if client is None:
        return [of_gateway.no_address()]
    has_storage = deployment.broker is None or not deployment.broker.existing
    try:
        return await asyncio.to_thread(of_gateway.ask_gateway, client, has_storage=has_storage, timeout_s=timeout_s)
    except ConfigurationError as error:
        return [broken(of_gateway.CHECK, error.message, "the client does not start", "correct the setting")]


_COLOURS: Final = {Severity.OK: "green", Severity.SKIPPED: None, Severity.WARNING: "yellow", Severity.BROKEN: "red"}
_INDENT: Final = " " * 10


@click.command(
    short_help="Says what is wrong, why it matters, and what mends it.",
    epilog="Exit codes: 0 all is well; 1 there are warnings; 2 something is broken.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file, in place of the one of `provgate`.",
)
@click.option("--format", "output_format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Seconds that broker, database and gateway each have to answer.",
)
@setting_options(RabbitMqSettings, "PROVGATE_WORKERS", only=(*BROKER_FIELDS, "topology"))
@setting_options(GatewaySettings, "PROVGATE_GATEWAY", only=("listen",))
@click.pass_context
def doctor(
    context: click.Context, /, config: Path | None, output_format: str, timeout_s: float, **_options: Any
) -> None:
    """Check configuration, broker, database, gateway and certificates, and say what is wrong.

    What is not configured on this machine is skipped. Nothing is changed: to see whether packages could be published,
    an empty message is sent to each exchange with a routing key that no queue is bound to.
    """
    # Whoever asks says what became of it.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    deployment = read_deployment(context, config or context.find_root().params.get("config"))
    findings = asyncio.run(examine(deployment, timeout_s))
    if output_format == "json":
        click.echo(_json(findings))
    else:
        _print(findings)
    context.exit(exit_code(findings))


def _json(findings: list[Finding]) -> bytes:
    told = {"exit_code": exit_code(findings), "findings": findings}
    return msgspec.json.format(msgspec.json.encode(told), indent=2)


def _print(findings: Iterable[Finding]) -> None:
    for finding in findings:
        severity = click.style(f"{finding.severity:10}", fg=_COLOURS[finding.severity])
        click.echo(f"{severity}{click.style(finding.check, bold=True)}: {finding.what}")
        if finding.why:
            click.echo(f"{_INDENT}why: {finding.why}\n{_INDENT}do:  {finding.remedy}")
