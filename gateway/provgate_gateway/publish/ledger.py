"""Which packages are published, and which are acked: pure bookkeeping.

Every publication of a package has a correlation id of its own, so that the counts of two packages, or of a package and
its re-publication, are never added together. A package counts as published once one of its publications is confirmed
or it is acked (a reply can overtake its confirm), and as acked once a full reply to any of its ids has come; both once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from provgate_broker.wire.package import Nack, Reply
from provgate_gateway.write.splitting import Package


class PackageOwner(Protocol):
    """The call that packages belong to."""

    def published(self, package: Package) -> None:
        """A package is safe in the broker. Told once a package."""

    def acked(self, package: Package) -> None:
        """A package is committed in the local storage. Told once a package."""

    def refused(self, nack: Nack) -> None:
        """A worker refused a package."""

    def returned(self, package: Package) -> None:
        """The broker has no queue for a package."""

    def nacked(self, package: Package, *, queue_is_full: bool) -> None:
        """The broker refused a package. Where its queue is not known to be full, the cause is not known."""


@dataclass(slots=True, eq=False)
class OpenPackage:
    """A package that is not acked.

    Attributes:
        package: the package.
        owner: its call.
        published: whether it counts as published.
        confirmed: whether the latest publication is confirmed.
        correlation_ids: of all its publications, in order.
        first_published_at, published_at: when the first and the latest publication was made, on the monotonic clock.
    """

    package: Package
    owner: PackageOwner
    published: bool = False
    confirmed: bool = False
    correlation_ids: list[str] = field(default_factory=list)
    first_published_at: float = 0.0
    published_at: float = 0.0


class Ledger:
    """The packages that are not acked.

    Args:
        sum_replies: whether several replies to one id are added up until they cover the package. Only right where no
            worker gets a package again that it has replied to; otherwise a reply that is too small counts for nothing.
        new_id: makes correlation ids, each another.
    """

    def __init__(self, *, sum_replies: bool = False, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._sum_replies = sum_replies
        self._new_id = new_id
        self._by_id: dict[str, OpenPackage] = {}
        self._sums: dict[str, int] = {}
        self._open: dict[OpenPackage, None] = {}
        self._by_owner: dict[PackageOwner, set[OpenPackage]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, opened: OpenPackage) -> bool:
        return opened in self._open

    def add(self, package: Package, owner: PackageOwner) -> OpenPackage:
        """Takes a package in."""
        opened = OpenPackage(package, owner)
        self._open[opened] = None
        self._by_owner.setdefault(owner, set()).add(opened)
        return opened

    def publication(self, opened: OpenPackage, now: float = 0.0) -> str:
        """Returns the correlation id of a new publication of a package, made at `now` on the monotonic clock."""
        correlation_id = self._new_id()
        opened.published_at = now
        if not opened.correlation_ids:
            opened.first_published_at = now
        opened.correlation_ids.append(correlation_id)
        opened.confirmed = False
        self._by_id[correlation_id] = opened
        return correlation_id

    def find(self, correlation_id: str) -> OpenPackage | None:
        """Returns the package that was published under an id; None where it is acked or dropped."""
        return self._by_id.get(correlation_id)

    def take_returned(self, correlation_id: str) -> OpenPackage | None:
        """Takes note that a publication reached no queue, and returns its package; None where that is not here.

        The broker confirms such a publication too: that confirm, and whatever else comes for its id, is ignored.
        """
        return self._by_id.pop(correlation_id, None)

    def confirm(self, correlation_id: str) -> None:
        """Counts a confirm. One for a package that is not here is ignored."""
        opened = self._by_id.get(correlation_id)
        if opened is None:
            return
        if opened.correlation_ids[-1] == correlation_id:
            opened.confirmed = True
        self._count_published(opened)

    def reply(self, correlation_id: str, reply: Reply) -> None:
        """Counts a reply. One for a package that is not here is ignored, and so is one that is too small."""
        opened = self._by_id.get(correlation_id)
        if opened is None:
            return
        if isinstance(reply, Nack):
            opened.owner.refused(reply)
        elif self._covers(correlation_id, reply, opened.package.entry_count):
            self._remove(opened)
            self._count_published(opened)
            opened.owner.acked(opened.package)

    def drop(self, owner: PackageOwner) -> list[OpenPackage]:
        """Forgets the packages of a call, and returns them. What comes for them later is ignored."""
        dropped = list(self._by_owner.get(owner, ()))
        for opened in dropped:
            self._remove(opened)
        return dropped

    def unconfirmed(self) -> Iterator[OpenPackage]:
        """Yields the packages whose latest publication is not confirmed, in the order in which they came."""
        return (opened for opened in self._open if not opened.confirmed)

    def unacked(self) -> Iterator[OpenPackage]:
        """Yields all packages, in the order in which they came."""
        return iter(self._open)

    def _covers(self, correlation_id: str, count: int, entry_count: int) -> bool:
        if self._sum_replies:
            count += self._sums.get(correlation_id, 0)
            self._sums[correlation_id] = count
        return count >= entry_count

    def _count_published(self, opened: OpenPackage) -> None:
        if not opened.published:
            opened.published = True
            opened.owner.published(opened.package)

    def _remove(self, opened: OpenPackage) -> None:
        del self._open[opened]
        of_owner = self._by_owner[opened.owner]
        of_owner.remove(opened)
        if not of_owner:
            del self._by_owner[opened.owner]
        for correlation_id in opened.correlation_ids:
            self._by_id.pop(correlation_id, None)
            self._sums.pop(correlation_id, None)
