"""The command `provgate doctor`."""

from __future__ import annotations

import asyncio
import logging
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from provgate_broker.settings import BROKER_FIELDS, RabbitMqSettings
from provgate_gateway.settings import GatewaySettings
from provgate_operations.config.command import config_option
from provgate_operations.doctor.broker import check_broker
from provgate_operations.doctor.certificates import certificate_findings
from provgate_operations.doctor.database import check_database, no_database
from provgate_operations.doctor.deployment import Deployment, read_deployment, version_finding
from provgate_operations.doctor.findings import Finding, Severity, exit_code
from provgate_operations.doctor.gateway import check_gateway
from provgate_runtime import setting_options

_COLOURS: Final = {Severity.OK: "green", Severity.SKIPPED: None, Severity.WARNING: "yellow", Severity.BROKEN: "red"}
_INDENT: Final = " " * 10


@click.command(
    short_help="Finds problems, and says why they matter and how to fix them.",
    epilog="Exit codes: 0 nothing is wrong; 1 there are warnings; 2 something is broken.",
)
@config_option
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the output.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Time limit in seconds of each of broker, database and gateway.",
)
@setting_options(RabbitMqSettings, "PROVGATE_WORKERS", only=(*BROKER_FIELDS, "topology"))
@setting_options(GatewaySettings, "PROVGATE_GATEWAY", only=("listen",))
@click.pass_context
def doctor(
    context: click.Context, /, config_path: Path | None, output_format: str, timeout_s: float, **_options: Any
) -> None:
    """Check configuration, broker, database, gateway and certificates.

    What is not configured on this machine is skipped. Nothing is changed: to see whether packages can be published, an
    empty message is sent to each exchange with a routing key that no queue is bound to.
    """
    # The findings have what pika would log.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    deployment = read_deployment(context, config_path or context.find_root().params.get("config"))
    findings = asyncio.run(_examine(deployment, timeout_s))
    if output_format == "json":
        report = {"exit_code": exit_code(findings), "findings": findings}
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        for finding in findings:
            severity = click.style(f"{finding.severity:10}", fg=_COLOURS[finding.severity])
            click.echo(f"{severity}{click.style(finding.check, bold=True)}: {finding.what}")
            if finding.why:
                click.echo(f"{_INDENT}why: {finding.why}\n{_INDENT}do:  {finding.remedy}")
    context.exit(exit_code(findings))


async def _examine(deployment: Deployment, timeout_s: float) -> list[Finding]:
    """Returns the findings of all checks. Broker, databases and gateway are asked at once."""
    policy = None if deployment.broker is None else deployment.broker.policy
    answers = await asyncio.gather(
        check_broker(deployment.broker, timeout_s),
        *(check_database(where, storage, policy, timeout_s) for where, storage in deployment.databases.items()),
        asyncio.to_thread(check_gateway, deployment, timeout_s),
    )
    findings = [*deployment.findings, version_finding(), *chain.from_iterable(answers)]
    if not deployment.databases:
        findings += no_database()
    return [*findings, *certificate_findings(deployment)]
