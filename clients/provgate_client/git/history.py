"""The commits of a repository, in the order in which they are indexed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from provgate_client.git.progress import LeftOut, LeftOutReason
from provgate_storage.model import Id
from provgate_storage.rows.values import EPOCH

if TYPE_CHECKING:
    from provgate_client.git.repository import GitRepository

_SECOND: Final = timedelta(seconds=1)
_FIRST_S: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _SECOND
_LAST_S: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _SECOND


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit as the index sees it: its id, its author date, its root directory and its parents."""

    id: Id
    date: datetime
    root: Id
    parents: tuple[Id, ...]


@dataclass(frozen=True, slots=True)
class History:
    """All commits that the heads reach. It takes about 200 bytes for each.

    Attributes:
        order: author time in seconds and id of each commit that can be indexed, ascending.
        heads: those of them that refs name, ascending.
        left_out: the commits that cannot be indexed. Their ancestors can.
    """

    order: list[tuple[int, Id]]
    heads: list[Id]
    left_out: list[LeftOut]


def read_history(repository: GitRepository) -> History:
    """Walks the commits of a repository, each once.

    Raises:
        ObjectMissingError: a commit is missing, and neither a shallow clone nor a graft explains it.
        RepositoryError: a commit cannot be read.
    """
    heads, grafts = repository.heads(), repository.grafts()
    order: list[tuple[int, Id]] = []
    left_out: dict[Id, LeftOut] = {}
    seen, waiting = set(heads), list(heads)
    while waiting:
        commit_id = waiting.pop()
        commit = repository.commit(commit_id)
        if commit.author_time_s is None:
            left_out[commit_id] = LeftOut(LeftOutReason.DATE_MISSING, commit_id)
        elif not _FIRST_S <= commit.author_time_s <= _LAST_S:
            left_out[commit_id] = LeftOut(LeftOutReason.DATE_RANGE, commit_id)
        else:
            order.append((commit.author_time_s, commit_id))
        new = [parent for parent in grafts.get(commit_id, commit.parents) if parent not in seen]
        seen.update(new)
        waiting.extend(new)
    order.sort()
    return History(order, sorted(head for head in heads if head not in left_out), list(left_out.values()))


def date_of(author_time_s: int) -> datetime:
    """Returns the date that is this many seconds after 1970-01-01. The times of a `History` are in range."""
    return EPOCH + timedelta(seconds=author_time_s)
