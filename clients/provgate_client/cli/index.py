"""`provgate index`."""

from __future__ import annotations

from pathlib import Path

import click

from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.failures import INTERRUPTED_EXIT_CODE
from provgate_client.cli.index_display import index_display
from provgate_client.cli.origin import default_origin
from provgate_client.cli.output import printable, printable_path
from provgate_client.git import IndexReport, LeftOut, index_repository
from provgate_config.counted import counted


@click.command(short_help="Writes the history of a git repository to the index.")
@click.argument("repository", metavar="REPO", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--origin",
    help="The URL that the repository comes from. Where not given: that of its remote `origin`, without secrets; else, "
    "also where that remote is a local path, file:// and the absolute path of REPO.",
)
@click.option(
    "--any-owner",
    is_flag=True,
    help="Read the repository whoever owns it. Where not given, git's rule holds (safe.directory).",
)
@pass_connection
@click.pass_context
def index(
    context: click.Context, connection: Connection, repository: Path, origin: str | None, any_owner: bool
) -> None:
    """Writes the history of the git repository REPO to the index: all commits that its refs reach.

    REPO is a bare repository or a working tree. Only commits and trees are read, never files. The command may be
    interrupted at any point and run again, which goes on where it was; run once more on a finished repository it adds
    what is new.

    Exits with 1 where commits or paths had to be left out, because of dates or paths that the index cannot hold; they
    are listed.
    """
    url = origin if origin is not None else _told_origin(repository, any_owner)
    try:
        with connection.open(named=True) as storage, index_display() as display:
            report = index_repository(repository, storage, url, progress=display.update, any_owner=any_owner)
    except KeyboardInterrupt:
        click.echo("Interrupted. What was acked is stored; run the same command again to go on.", err=True)
        context.exit(INTERRUPTED_EXIT_CODE)
    _print_report(report)
    context.exit(0 if report.is_complete else 1)


def _told_origin(repository: Path, any_owner: bool) -> str:
    url, why = default_origin(repository, any_owner)
    click.echo(f"origin: {printable(url)} ({why})", err=True)
    return url


def _print_report(report: IndexReport) -> None:
    click.echo(
        f"{counted(report.revisions_done, 'revision')} indexed, {report.revisions_known} known before, "
        f"{counted(report.head_count, 'head')}; {counted(sum(report.entries.values()), 'entry', 'entries')} written"
    )
    for what, count in sorted(report.entries.items()):
        click.echo(f"  {what:<26} {count:>12}")
    for reason, count in report.left_out_count.items():
        click.echo(f"left out: {count} where {reason}", err=True)
    for item in report.left_out:
        click.echo(f"  {_named(item)}: {item.reason}", err=True)
    unnamed_count = report.left_out_count.total() - len(report.left_out)
    if unnamed_count:
        click.echo(f"  and {unnamed_count} more", err=True)


def _named(item: LeftOut) -> str:
    return item.revision.hex() + (f" {printable_path(item.path)}" if item.path is not None else "")
