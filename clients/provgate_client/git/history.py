"""The commits of a repository, in the order in which they are indexed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from provgate_client.git.objects import Commit
from provgate_client.git.progress import LeftOut, LeftOutReason
from provgate_storage.model import Id

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_FIRST_S: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _SECOND
_LAST_S: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _SECOND


class CommitReader(Protocol):
    """What of a repository a history is made from."""

    def heads(self) -> Collection[Id]:
        """Returns the commits at which the history starts."""

    def commit(self, commit_id: Id) -> Commit:
        """Returns a commit."""

    def grafts(self) -> Mapping[Id, tuple[Id, ...]]:
        """Returns where the history goes on, of those commits where that is not at their parents."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit as the index sees it: its id, its author date, its root directory and its parents."""

    id: Id
    date: datetime
    root: Id
    parents: tuple[Id, ...]


@dataclass(frozen=True, slots=True)
class History:
    """All commits that the heads reach. About 200 bytes are held for each.

    Attributes:
        order: author time in seconds and id of each commit that can be indexed, ascending.
        heads: those of them that refs name, ascending.
        left_out: the commits that cannot be indexed. Their ancestors can.
    """

    order: list[tuple[int, Id]]
    heads: list[Id]
    left_out: list[LeftOut]


def read_history(repository: CommitReader) -> History:
    """Walks the commits of a repository, each once.

    Raises:
        ObjectMissingError: a commit is missing, and no shallow clone or graft explains it.
        RepositoryError: a commit cannot be read.
    """
    heads, grafts = repository.heads(), repository.grafts()
    order: list[tuple[int, Id]] = []
    left_out: dict[Id, LeftOut] = {}
    seen, waiting = set(heads), list(heads)
    while waiting:
        commit_id = waiting.pop()
        commit = repository.commit(commit_id)
        reason = refusal(commit)
        if reason is None and commit.author_time_s is not None:
            order.append((commit.author_time_s, commit_id))
        elif reason is not None:
            left_out[commit_id] = LeftOut(reason, commit_id)
        new = [parent for parent in grafts.get(commit_id, commit.parents) if parent not in seen]
        seen.update(new)
        waiting.extend(new)
    order.sort()
    return History(order, sorted(head for head in heads if head not in left_out), list(left_out.values()))


def refusal(commit: Commit) -> LeftOutReason | None:
    """Returns why a commit cannot be indexed; None where it can."""
    if commit.author_time_s is None:
        return LeftOutReason.DATE_MISSING
    if not _FIRST_S <= commit.author_time_s <= _LAST_S:
        return LeftOutReason.DATE_RANGE
    return None


def date_of(author_time_s: int) -> datetime:
    """Returns the date that is so many seconds after 1970-01-01; the range was checked by `refusal`."""
    return _EPOCH + timedelta(seconds=author_time_s)
