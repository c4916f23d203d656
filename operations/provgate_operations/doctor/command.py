"""The command `provgate doctor`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from provgate_broker.settings import BROKER_FIELDS, RabbitMqSettings
from provgate_config import setting_options
from provgate_gateway.settings import GatewaySettings
from provgate_operations.doctor.deployment import read_deployment
from provgate_operations.doctor.examination import examine
from provgate_operations.doctor.findings import Finding, Severity, exit_code

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
