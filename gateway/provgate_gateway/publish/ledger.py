"""The packages that are not acked: pure bookkeeping that returns what happened as events.

The life of a package here: it waits to be published; it is published, under a new correlation id each time; it is
confirmed; it is acked, and leaves the ledger. A lost connection makes it wait again.

Each publication has a correlation id of its own, so that the reply counts of two packages, or of two publications of
one package, are never added together. A package counts as published when one of its publications is confirmed or when
it is acked (a reply can overtake its confirm). It counts as acked when a full reply to any of its ids arrives. Both
happen once.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from provgate_broker.wire.package import Nack, Reply
from provgate_gateway.write.splitting import Package


class PackageOwner(Protocol):
    """The write call that packages belong to. The ledger itself never calls it."""

    def handle(self, event: PackageEvent) -> None:
        """Acts on what happened to one of its packages."""


@dataclass(frozen=True, slots=True)
class PackageEvent:
    """Something happened to a package of `owner`."""

    owner: PackageOwner
    package: Package


@dataclass(frozen=True, slots=True)
class Published(PackageEvent):
    """The package is safe in the broker, once."""


@dataclass(frozen=True, slots=True)
class Confirmed(PackageEvent):
    """The latest publication of the package is confirmed, `confirm_s` after it was made."""

    confirm_s: float


@dataclass(frozen=True, slots=True)
class Acked(PackageEvent):
    """The package is committed in the local storage, once: `ack_s` after its first publication."""

    ack_s: float


@dataclass(frozen=True, slots=True)
class Refused(PackageEvent):
    """A worker refused the package."""

    nack: Nack


@dataclass(frozen=True, slots=True)
class Returned(PackageEvent):
    """The broker has no queue, or no exchange, for the package."""


@dataclass(frozen=True, slots=True)
class BrokerRefused(PackageEvent):
    """The broker refused the package with a nack. `queue_is_full` if that is known to be the cause."""

    queue_is_full: bool = False


class Publication(NamedTuple):
    """A package to publish now. The correlation id is for this publication alone."""

    correlation_id: str
    package: Package
    is_republication: bool


@dataclass(slots=True, eq=False)
class _OpenPackage:
    package: Package
    owner: PackageOwner
    correlation_ids: list[str] = field(default_factory=list)  # of all publications, in order
    is_published: bool = False
    is_confirmed: bool = False  # whether the latest publication is
    first_published_at: float = 0.0
    published_at: float = 0.0  # of the latest publication


class Ledger:
    """The packages that are not acked, and which of them wait to be published.

    A confirm or reply for a package that is not here (acked, dropped) returns no events.

    Args:
        sum_replies: whether several replies to one id are added up until they cover the package. Only right if no
            worker gets a package again after it has replied; otherwise a reply that is too small counts for nothing.
    """

    def __init__(self, *, sum_replies: bool = False) -> None:
        self._sum_replies = sum_replies
        self._open: dict[_OpenPackage, None] = {}
        # An OrderedDict finds its first key at once; a dict walks over all keys that were deleted before it.
        self._waiting: OrderedDict[_OpenPackage, None] = OrderedDict()
        self._by_id: dict[str, _OpenPackage] = {}
        self._sums: dict[str, int] = {}
        self._by_owner: dict[PackageOwner, set[_OpenPackage]] = {}

    def add(self, packages: Iterable[Package], owner: PackageOwner) -> None:
        """Adds packages of a call. They wait to be published."""
        for package in packages:
            opened = _OpenPackage(package, owner)
            self._open[opened] = self._waiting[opened] = None
            self._by_owner.setdefault(owner, set()).add(opened)

    def next_publication(self, now: float) -> Publication | None:
        """Returns the package that waits first, with a new correlation id, and counts it as published at `now`."""
        if not self._waiting:
            return None
        opened, _ = self._waiting.popitem(last=False)
        correlation_id = uuid.uuid4().hex
        is_republication = bool(opened.correlation_ids)
        opened.published_at = now
        if not is_republication:
            opened.first_published_at = now
        opened.correlation_ids.append(correlation_id)
        opened.is_confirmed = False
        self._by_id[correlation_id] = opened
        return Publication(correlation_id, opened.package, is_republication)

    def confirm(self, correlation_id: str, now: float) -> list[Published | Confirmed]:
        """Counts a confirm."""
        opened = self._by_id.get(correlation_id)
        if opened is None:
            return []
        events: list[Published | Confirmed] = [*self._published(opened)]
        if opened.correlation_ids[-1] == correlation_id and not opened.is_confirmed:
            opened.is_confirmed = True
            events.append(Confirmed(opened.owner, opened.package, now - opened.published_at))
        return events

    def reply(self, correlation_id: str, reply: Reply, now: float) -> list[Published | Acked | Refused]:
        """Counts a reply."""
        opened = self._by_id.get(correlation_id)
        if opened is None:
            return []
        if isinstance(reply, Nack):
            return [Refused(opened.owner, opened.package, reply)]
        if self._sum_replies:
            reply += self._sums.get(correlation_id, 0)
            self._sums[correlation_id] = reply
        if reply < opened.package.entry_count:
            return []
        self._remove(opened)
        ack_s = now - opened.first_published_at
        return [*self._published(opened), Acked(opened.owner, opened.package, ack_s)]

    def return_publication(self, correlation_id: str) -> list[Returned]:
        """Forgets a publication that reached no queue.

        The broker confirms such a publication too: that confirm, and whatever else comes for its id, is ignored.
        """
        opened = self._by_id.pop(correlation_id, None)
        return [] if opened is None else [Returned(opened.owner, opened.package)]

    def refuse_publication(self, correlation_id: str) -> list[BrokerRefused]:
        """Returns the event of a publication that the broker refused."""
        opened = self._by_id.get(correlation_id)
        return [] if opened is None else [BrokerRefused(opened.owner, opened.package)]

    def republish_unconfirmed(self, missing_exchange: str | None = None) -> list[Returned]:
        """Makes packages wait whose latest publication is not confirmed, except those of an exchange that is missing.

        Those can never be published: each of them is returned.
        """
        returned = []
        for opened in self._open:
            if opened.is_confirmed:
                continue
            if opened.package.exchange.value == missing_exchange:
                returned.append(Returned(opened.owner, opened.package))
            else:
                self._waiting[opened] = None
        return returned

    def republish_all(self) -> None:
        """Makes every package wait."""
        self._waiting.update(self._open)

    def drop(self, owner: PackageOwner) -> None:
        """Forgets the packages of a call: those that wait are never published."""
        for opened in list(self._by_owner.get(owner, ())):
            self._remove(opened)

    def _published(self, opened: _OpenPackage) -> list[Published]:
        if opened.is_published:
            return []
        opened.is_published = True
        return [Published(opened.owner, opened.package)]

    def _remove(self, opened: _OpenPackage) -> None:
        del self._open[opened]
        self._waiting.pop(opened, None)
        of_owner = self._by_owner[opened.owner]
        of_owner.remove(opened)
        if not of_owner:
            del self._by_owner[opened.owner]
        for correlation_id in opened.correlation_ids:
            self._by_id.pop(correlation_id, None)
            self._sums.pop(correlation_id, None)
