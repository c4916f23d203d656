"""The command `provgate top`."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.live import Live

from provgate_broker.settings import METRICS_LISTEN as WORKERS_DEFAULT
from provgate_broker.settings import SECTION as RABBITMQ
from provgate_gateway.settings import METRICS_LISTEN as GATEWAY_DEFAULT
from provgate_gateway.settings import SECTION as GATEWAY
from provgate_operations.config.command import config_option
from provgate_operations.config.effective import SECTIONS
from provgate_operations.top.figures import figures, first_figures
from provgate_operations.top.scrape import Role, Source, scrape_all
from provgate_operations.top.view import view
from provgate_runtime import ConfigDocument, load_section
from provgate_runtime.addresses import OFF, local_address
from provgate_runtime.options import environment_context


@click.command(short_help="Shows rates, queues and latencies of gateways and workers, live or once.")
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    metavar="HOST:PORT",
    help="The watch port of a gateway; may be given several times. Without --gateway and --workers, the ports of the "
    f"configuration or of the stack of `make up`, else {GATEWAY_DEFAULT}.",
)
@click.option(
    "--workers",
    multiple=True,
    metavar="HOST:PORT",
    help=f"The watch port of a worker program, likewise; else {WORKERS_DEFAULT}.",
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two scrapes.",
)
@click.option("--once", is_flag=True, help="Scrape twice, print the figures, and exit; with 1 if no program answers.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The format of --once.",
)
@config_option
@click.pass_context
def top(
    context: click.Context,
    /,
    gateways: tuple[str, ...],
    workers: tuple[str, ...],
    interval_s: float,
    once: bool,
    output_format: str,
    config_path: Path | None,
) -> None:
    """Show rates, queues, latencies and connections of gateways and workers. Ctrl-C ends it.

    Queue depths are those of the gateway's last inspection (inspection_interval). A program that does not answer is
    shown with the reason.
    """
    if output_format == "json" and not once:
        raise click.UsageError("--format json needs --once")
    if not gateways and not workers:
        document = ConfigDocument.load(config_path or context.find_root().params.get("config"), profile=True)
        gateways = _configured(document, GATEWAY, GATEWAY_DEFAULT)
        workers = _configured(document, RABBITMQ, WORKERS_DEFAULT)
    sources = [Source(Role.GATEWAY, address) for address in gateways]
    sources += [Source(Role.WORKERS, address) for address in workers]
    if not once:
        _show(sources, interval_s)
        return
    before = scrape_all(sources)
    time.sleep(interval_s)
    found = figures(before, scrape_all(sources))
    if output_format == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        Console().print(view(found))
    if all(program.problem for program in found.programs):
        raise click.ClickException("no program answers")


def _configured(document: ConfigDocument, name: str, default: str) -> tuple[str, ...]:
    """Returns the address of the watch port that a section configures; none if it is off."""
    section = next(each for each in SECTIONS if each.name == name)
    context = environment_context(section.program, section.settings, section.env_prefix)
    settings = load_section(context, section.settings, document.section(name), section.path)
    listen: str = msgspec.structs.asdict(settings)["metrics_listen"] or default
    return () if listen == OFF else (local_address(listen),)


def _show(sources: Sequence[Source], interval_s: float) -> None:
    # Ctrl-C is awaited, not raised: an exception within the display would leave its lock held, and hang.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        now = scrape_all(sources)
        with Live(view(first_figures(now)), screen=True, auto_refresh=False) as live:
            live.refresh()
            while signal.sigtimedwait({signal.SIGINT}, interval_s) is None:
                before, now = now, scrape_all(sources)
                live.update(view(figures(before, now)), refresh=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
