"""`provgate index`: writes the history of a git repository to the index."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.output import printable, printable_path
from provgate_client.git import IndexProgress, IndexReport, index_repository
from provgate_client.git.progress import ProgressCallback
from provgate_runtime.counted import counted

_INTERRUPTED: Final = "Interrupted. What was acked is stored; run the same command again to go on."


@click.command(short_help="Writes the history of a git repository to the index.")
@click.argument("repository", metavar="REPO", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--origin",
    help="The URL that the repository comes from. The default is the URL of its remote `origin`, without secrets. If "
    "there is no such remote, or it is a local path: file:// and the absolute path of REPO.",
)
@click.option(
    "--any-owner",
    is_flag=True,
    help="Read the repository even if it belongs to another user. The default is git's rule (safe.directory).",
)
@pass_connection
@click.pass_context
def index(
    context: click.Context, connection: Connection, repository: Path, origin: str | None, any_owner: bool
) -> None:
    """Writes the history of the git repository REPO to the index: all commits that its refs reach.

    REPO is a bare repository or a working tree. Only commits and trees are read, never files. You can interrupt the
    command at any point and run it again: it continues where it stopped. Run on a finished repository, it adds what is
    new.

    Exits with 1 if commits or paths were left out, because the index cannot hold their dates or names. It lists them.
    """
    if origin is None:
        origin, source = default_origin(repository, any_owner)
        click.echo(f"origin: {printable(origin)} ({source})", err=True)
    console = Console(stderr=True)
    with (
        connection.open(named=True, interrupted=_INTERRUPTED) as storage,
        _bars(console) if console.is_terminal else _lines() as progress,
    ):
        report = index_repository(repository, storage, origin, progress=progress, any_owner=any_owner)
    _print_report(report)
    context.exit(0 if report.is_complete else 1)


_REMOTE: Final = "origin"
_WEB: Final = ("http", "https", "ftp", "ftps")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://.", re.IGNORECASE)

# A slash before the first colon makes it a path, and a second colon the name of a remote helper (gitremote-helpers).
_SCP: Final = re.compile(r"(?P<host>([^/:@\[\]]+@)?(\[[^/\[\]]+\]|[^/:@\[\]]+)):(?P<path>[^:].*)")


def default_origin(repository: Path, any_owner: bool) -> tuple[str, str]:
    """Returns the URL of a repository, and where it comes from: the remote `origin`, or the repository's own path.

    Raises:
        RepositoryError: the repository cannot be read.
        GitReaderMissingError: the extra `provgate[git]` is not installed.
    """
    from provgate_client.git.repository import GitRepository

    with GitRepository(repository, any_owner=any_owner) as opened:
        remote = opened.remote_url(_REMOTE)
    own = repository.resolve().as_uri()
    if not remote:
        return own, f"the repository has no remote {_REMOTE!r}"
    url = _url_of_remote(remote)
    if url is None:
        return own, f"the repository's remote {_REMOTE!r} is not a URL"
    return url, f"the repository's remote {_REMOTE!r}"


def _url_of_remote(remote: str) -> str | None:
    """Returns a remote as a URL without secrets; None if it is a local path, which means nothing on other machines.

    The short form of ssh, `user@host:path` (git-clone, "GIT URLS"), becomes an ssh:// URL, so that a repository has the
    same origin in both forms. User and password are removed from web addresses, the password from others.
    """
    if _URL.match(remote):
        try:
            parts = urlsplit(remote)
        except ValueError:  # a bracket without its other half
            return None
        user_info, _, host = parts.netloc.rpartition("@")
        user = "" if parts.scheme in _WEB else user_info.partition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))
    short = _SCP.fullmatch(remote)
    if short is None:
        return None
    return f"ssh://{short['host']}/{quote(short['path'].removeprefix('/'), safe='/~!$&()*+,;=:@')}"


_LINE_EVERY_S: Final = 5.0


@contextmanager
def _bars(console: Console) -> Iterator[ProgressCallback]:
    """Shows progress on a terminal."""
    columns = TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        revisions = bars.add_task("revisions", total=None, note="")
        entries = bars.add_task("entries", total=None, note="acked of those sent")
        start_s = time.monotonic()

        def show(progress: IndexProgress) -> None:
            known = f"{progress.revisions_known:,} known before" if progress.revisions_known else ""
            completed = progress.revisions_known + progress.revisions_done
            bars.update(revisions, total=progress.revisions_total, completed=completed, note=known)
            rate = f"acked of those sent, {progress.entries_acked / (time.monotonic() - start_s):,.0f}/s"
            bars.update(entries, total=progress.entries_sent, completed=progress.entries_acked, note=rate)

        yield show


@contextmanager
def _lines() -> Iterator[ProgressCallback]:
    """Prints progress every five seconds, and at the end."""
    start_s = time.monotonic()
    next_s = 0.0
    line = printed = ""

    def show(progress: IndexProgress) -> None:
        nonlocal next_s, line, printed
        now_s = time.monotonic()
        line = (
            f"revisions {progress.revisions_known + progress.revisions_done} of {progress.revisions_total}, "
            f"entries sent {progress.entries_sent}, acked {progress.entries_acked}, "
            f"{progress.entries_acked / (now_s - start_s):.0f}/s"
        )
        if now_s >= next_s:
            next_s, printed = now_s + _LINE_EVERY_S, line
            click.echo(line, err=True)

    try:
        yield show
    finally:
        if line != printed:
            click.echo(line, err=True)


def _print_report(report: IndexReport) -> None:
    click.echo(
        f"{counted(report.revisions_done, 'revision')} indexed, {report.revisions_known} known before, "
        f"{counted(report.head_count, 'head')}; {counted(sum(report.entries.values()), 'entry', 'entries')} written"
    )
    for what, count in sorted(report.entries.items()):
        click.echo(f"  {what:<26} {count:>12}")
    for reason, count in report.left_out_count.items():
        click.echo(f"left out: {count} because {reason}", err=True)
    for item in report.left_out:
        path = "" if item.path is None else f" {printable_path(item.path)}"
        click.echo(f"  {item.revision.hex()}{path}: {item.reason}", err=True)
    unlisted_count = report.left_out_count.total() - len(report.left_out)
    if unlisted_count:
        click.echo(f"  and {unlisted_count} more", err=True)
