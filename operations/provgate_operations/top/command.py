"""The command `provgate top`."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.live import Live

from provgate_broker.settings import METRICS_LISTEN as WORKERS_DEFAULT
from provgate_broker.settings import SECTION as RABBITMQ
from provgate_gateway.settings import METRICS_LISTEN as GATEWAY_DEFAULT
from provgate_gateway.settings import SECTION as GATEWAY
from provgate_operations.config.effective import SECTIONS
from provgate_operations.top.figures import Figures, Role, Source, figures, scrape_all, since_start
from provgate_operations.top.view import view
from provgate_runtime import ConfigDocument, load_section
from provgate_runtime.addresses import OFF, local_address
from provgate_runtime.options import environment_context

_TIMEOUT_S: Final = 2.0


@click.command(short_help="Shows how gateways and workers are doing, live or once as JSON.")
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    metavar="HOST:PORT",
    help="The metrics port of a gateway; may be given several times. That of the configuration or of the stack of "
    f"`make up`, else {GATEWAY_DEFAULT}, where neither --gateway nor --workers is given.",
)
@click.option(
    "--workers",
    multiple=True,
    metavar="HOST:PORT",
    help=f"The metrics port of a worker program, likewise; else {WORKERS_DEFAULT}.",
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds from one look to the next.",
)
@click.option(
    "--once", is_flag=True, help="Look twice, print what happened between, and end: with 1 where nothing answers."
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How --once prints.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file, in place of the one of `provgate`.",
)
@click.pass_context
def top(
    context: click.Context,
    /,
    gateways: tuple[str, ...],
    workers: tuple[str, ...],
    interval_s: float,
    once: bool,
    output_format: str,
    config: Path | None,
) -> None:
    """Show how gateways and workers are doing: rates, queues, latencies, connections. Ctrl-C ends it.

    Depths are those of the gateway's last look at the broker (inspection_interval). A program that does not answer is
    shown as such.
    """
    if output_format == "json" and not once:
        raise click.UsageError("--format json needs --once")
    sources = _sources(gateways, workers, config or context.find_root().params.get("config"))
    if once:
        told = _between_two_looks(sources, interval_s)
        _print(told, output_format)
        if all(program.problem for program in told.programs):
            raise click.ClickException("no program answers")
        return
    _show(sources, interval_s)


def _sources(gateways: Sequence[str], workers: Sequence[str], config: Path | None) -> list[Source]:
    if not gateways and not workers:
        document = ConfigDocument.load(config, profile=True)
        gateways = _configured(document, GATEWAY, GATEWAY_DEFAULT)
        workers = _configured(document, RABBITMQ, WORKERS_DEFAULT)
    return [
        *(Source(Role.GATEWAY, address) for address in gateways),
        *(Source(Role.WORKERS, address) for address in workers),
    ]


def _configured(document: ConfigDocument, name: str, default: str) -> list[str]:
    section = next(each for each in SECTIONS if each.name == name)
    context = environment_context(section.program, section.settings, section.env_prefix)
    settings: Any = load_section(context, section.settings, document.section(name), section.path)
    listen = settings.metrics_listen or default
    return [] if listen == OFF else [local_address(listen)]


def _between_two_looks(sources: Sequence[Source], interval_s: float) -> Figures:
    before = scrape_all(sources, _TIMEOUT_S)
    time.sleep(interval_s)
    return figures(before, scrape_all(sources, _TIMEOUT_S))


def _print(told: Figures, output_format: str) -> None:
    if output_format == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
    else:
        Console().print(view(told))


def _show(sources: Sequence[Source], interval_s: float) -> None:
    # Ctrl-C is waited for rather than raised: an exception within the display would leave its lock taken, and hang.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        now = scrape_all(sources, _TIMEOUT_S)
        with Live(view(figures(since_start(now), now)), screen=True, auto_refresh=False) as live:
            live.refresh()
            while signal.sigtimedwait({signal.SIGINT}, interval_s) is None:
                before, now = now, scrape_all(sources, _TIMEOUT_S)
                live.update(view(figures(before, now)), refresh=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
