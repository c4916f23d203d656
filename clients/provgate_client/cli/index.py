"""`provgate index`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import quote, urlsplit, urlunsplit

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.failures import INTERRUPTED_EXIT_CODE
from provgate_client.cli.output import printable, printable_path
from provgate_client.git import IndexReport, LeftOut, index_repository
from provgate_client.git.progress import IndexProgress
from provgate_runtime.counted import counted

_REMOTE: Final = "origin"
_WEB: Final = ("http", "https", "ftp", "ftps")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://.", re.IGNORECASE)

# A slash before the first colon makes it a path, and a second colon the name of a remote helper (gitremote-helpers).
_SCP: Final = re.compile(r"(?P<host>([^/:@\[\]]+@)?(\[[^/\[\]]+\]|[^/:@\[\]]+)):(?P<path>[^:].*)")


def default_origin(repository: Path, any_owner: bool) -> tuple[str, str]:
    """Returns the URL that stands for a repository, and what it was made of.

    That is the URL of its remote `origin`, else the file:// URL of its absolute path.

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
    url = url_of_remote(remote)
    if url is None:
        return own, f"the repository's remote {_REMOTE!r} is no URL"
    return url, f"the repository's remote {_REMOTE!r}"


def url_of_remote(remote: str) -> str | None:
    """Returns a remote as a URL without secrets; None where it is a local path, which names nothing on other machines.

    The short form of ssh, `user@host:path` (git-clone, "GIT URLS"), becomes an ssh:// URL, so that a repository has one
    origin however its remote is written. Of a web address user and password are left out, of others the password.
    """
    if _URL.match(remote):
        try:
            parts = urlsplit(remote)
        except ValueError:
            # A bracket without its other half.
            return None
        user_info, _, host = parts.netloc.rpartition("@")
        user = "" if parts.scheme in _WEB else user_info.partition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))
    short = _SCP.fullmatch(remote)
    if short is None:
        return None
    return f"ssh://{short['host']}/{quote(short['path'].removeprefix('/'), safe='/~!$&()*+,;=:@')}"


_LINE_EVERY_S: Final = 5.0


class IndexDisplay(Protocol):
    """What is told of an index while it runs. A context manager. `update` is for one thread at a time."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def update(self, progress: IndexProgress) -> None:
        """Shows `progress`."""


def index_display() -> IndexDisplay:
    """Returns the display that fits standard error."""
    console = Console(stderr=True)
    return _Bars(console) if console.is_terminal else _Lines(console)


class _Rate:
    """Entries acked a second, since the start."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def of(self, progress: IndexProgress) -> float:
        return progress.entries_acked / max(time.monotonic() - self._start_s, 0.001)


class _Bars:
    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, TimeElapsedColumn(), console=console)
        self._revisions = self._bars.add_task("revisions", total=None, note="")
        self._entries = self._bars.add_task("entries", total=None, note="acked of those sent")
        self._rate = _Rate()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: IndexProgress) -> None:
        known = f"{progress.revisions_known:,} known before" if progress.revisions_known else ""
        completed = progress.revisions_known + progress.revisions_done
        self._bars.update(self._revisions, total=progress.revisions_total, completed=completed, note=known)
        rate = f"acked of those sent, {self._rate.of(progress):,.0f}/s"
        self._bars.update(self._entries, total=progress.entries_sent, completed=progress.entries_acked, note=rate)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0
        self._waiting: IndexProgress | None = None
        self._rate = _Rate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._waiting is not None:
            self._print(self._waiting)

    def update(self, progress: IndexProgress) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            self._waiting = progress
            return
        self._next_s = now_s + _LINE_EVERY_S
        self._waiting = None
        self._print(progress)

    def _print(self, progress: IndexProgress) -> None:
        self._console.print(
            f"revisions {progress.revisions_known + progress.revisions_done} of {progress.revisions_total}, "
            f"entries sent {progress.entries_sent}, acked {progress.entries_acked}, "
            f"{self._rate.of(progress):.0f}/s",
            soft_wrap=True,
            highlight=False,
        )


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
