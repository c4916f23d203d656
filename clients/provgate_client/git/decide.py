"""Decides what a revision adds to the index, by the rule of the frontier. Pure functions.

If all contents of a directory are older than a revision, the directory is a *frontier* of the revision. The revision
gets one row that names the directory (DIR_IN_REV). The directory gets the rows of its contents (CNT_IN_DIR), once for
all revisions. Every content outside of the frontiers gets a row of its own (CNT_EARLY_IN_REV).

Everything here is iterative: trees may be deeper than Python's recursion limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from provgate_client.git.history import Revision
from provgate_client.git.objects import Tree
from provgate_client.git.progress import LeftOut, LeftOutReason
from provgate_storage.model import Id, Path
from provgate_storage.rows.values import PATH_MAX_BYTES

TreeOf: TypeAlias = Callable[[Id], Tree]
DateOf: TypeAlias = Mapping[Id, datetime | None]
"""The dates that are stored or will be; None for an id without one. An id that was not looked up is a KeyError."""


@dataclass(slots=True)
class Additions:
    """The rows and dates that a revision adds.

    Attributes:
        in_revision: CNT_EARLY_IN_REV: content and path in the revision.
        frontiers: DIR_IN_REV: directory and path in the revision.
        in_directory: CNT_IN_DIR: content, directory, and path in the directory.
        content_dates: dates to send when `in_revision` is acked.
        directory_dates: dates to send when `in_directory` is acked.
        left_out: entries that the index cannot hold.
    """

    in_revision: list[tuple[Id, Path]] = field(default_factory=list)
    frontiers: list[tuple[Id, Path]] = field(default_factory=list)
    in_directory: list[tuple[Id, Id, Path]] = field(default_factory=list)
    content_dates: dict[Id, datetime] = field(default_factory=dict)
    directory_dates: dict[Id, datetime] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


class _Age(Enum):
    """The age of a directory compared with a revision."""

    EMPTY = "no content below it"
    OLD = "every content below it has a date before the revision's"
    NEW = "some content below it has no such date"


def decide(revision: Revision, tree_of: TreeOf, content_dates: DateOf, directory_dates: DateOf) -> Additions:
    """Returns what `revision` adds, given the dates that are stored or will be.

    The root is never a frontier. No argument is changed: the caller counts the new dates as stored before it decides on
    the next revision.
    """
    additions = Additions()
    ages = _ages(revision, tree_of, content_dates, directory_dates)
    waiting = [(revision.root, b"")]
    while waiting:
        directory, prefix = waiting.pop()
        tree = tree_of(directory)
        _refuse(additions, revision, prefix, tree)
        for name, content in tree.contents:
            _add_content(additions, revision, content, prefix + name, content_dates[content])
        for name, child in tree.directories:
            path, age = prefix + name, ages[child]
            if age is _Age.EMPTY:
                continue
            if len(path) > PATH_MAX_BYTES:
                additions.left_out.append(LeftOut(LeftOutReason.PATH_LENGTH, revision.id, path))
            elif age is _Age.NEW:
                waiting.append((child, path + b"/"))
            else:
                additions.frontiers.append((child, path))
                if directory_dates[child] is None and child not in additions.directory_dates:
                    _add_directory(additions, revision, child, path, tree_of, content_dates)
    return additions


def _ages(revision: Revision, tree_of: TreeOf, content_dates: DateOf, directory_dates: DateOf) -> dict[Id, _Age]:
    """Returns the age of every directory of a revision but the root, down to those with a date before the revision's.

    Below these, all contents have a row in a revision of that date or an earlier one. The directory's date proves it,
    even if the contents' own dates are not known.
    """
    ages: dict[Id, _Age] = {}
    waiting = [child for _, child in tree_of(revision.root).directories]
    while waiting:
        directory = waiting[-1]
        if directory in ages:
            waiting.pop()
        elif _is_before(directory_dates[directory], revision.date):
            ages[directory] = _Age.OLD
        else:
            tree = tree_of(directory)
            unknown = [child for _, child in tree.directories if child not in ages]
            if unknown:
                waiting.extend(unknown)
            else:
                ages[directory] = _age(tree, revision.date, content_dates, ages)
    return ages


def _age(tree: Tree, date: datetime, content_dates: DateOf, ages: Mapping[Id, _Age]) -> _Age:
    below = {ages[child] for _, child in tree.directories}
    if _Age.NEW in below or not all(_is_before(content_dates[content], date) for _, content in tree.contents):
        return _Age.NEW
    return _Age.OLD if tree.contents or _Age.OLD in below else _Age.EMPTY


def _is_before(stored: datetime | None, date: datetime) -> bool:
    return stored is not None and stored < date


def _add_content(additions: Additions, revision: Revision, content: Id, path: Path, stored: datetime | None) -> None:
    if len(path) > PATH_MAX_BYTES:
        additions.left_out.append(LeftOut(LeftOutReason.PATH_LENGTH, revision.id, path))
        return
    additions.in_revision.append((content, path))
    if stored is None or revision.date < stored:
        additions.content_dates[content] = revision.date


def _add_directory(
    additions: Additions, revision: Revision, directory: Id, path: Path, tree_of: TreeOf, content_dates: DateOf
) -> None:
    """Adds the contents of a directory that is a frontier for the first time, and its date: the latest of theirs.

    Sometimes only the date of a directory above a content shows that it is older than the revision, and its own date is
    not known or is later. Then the revision's date counts, which is never too early.
    """
    latest: datetime | None = None
    for prefix, tree in _below(directory, tree_of):
        _refuse(additions, revision, path + b"/" + prefix, tree)
        for name, content in tree.contents:
            stored, suffix = content_dates[content], prefix + name
            date = stored if stored is not None and stored < revision.date else revision.date
            latest = date if latest is None else max(latest, date)
            if len(suffix) > PATH_MAX_BYTES:
                left_out = path + b"/" + suffix
                additions.left_out.append(LeftOut(LeftOutReason.PATH_LENGTH, revision.id, left_out))
            else:
                additions.in_directory.append((content, directory, suffix))
    if latest is not None:
        additions.directory_dates[directory] = latest


def _below(directory: Id, tree_of: TreeOf) -> Iterator[tuple[bytes, Tree]]:
    """Yields a directory and those below it, each with the prefix that its entries' names get in `directory`."""
    waiting = [(directory, b"")]
    while waiting:
        current, prefix = waiting.pop()
        tree = tree_of(current)
        yield prefix, tree
        # A longer prefix cannot be stored anyway, and for a tree ten thousand deep prefixes would take 50 MB.
        waiting.extend((child, (prefix + name + b"/")[: PATH_MAX_BYTES + 1]) for name, child in tree.directories)


def _refuse(additions: Additions, revision: Revision, prefix: bytes, tree: Tree) -> None:
    for name in tree.refused:
        additions.left_out.append(LeftOut(LeftOutReason.NAME, revision.id, prefix + name))
