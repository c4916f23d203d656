"""Which packages wait, are published and are acked, whatever comes in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from provgate_broker.wire.package import Nack
from provgate_gateway.publish.ledger import Acked, Confirmed, Ledger, PackageEvent, Published, Refused, Returned
from provgate_gateway.write.splitting import Package
from tests.support.fake_broker import FakeOwner, package_of

NACK = Nack("malformed", "not a package", 3)


@dataclass(eq=False)
class Model:
    """What is known of one package that was added."""

    package: Package
    owner: FakeOwner
    ids: list[str] = field(default_factory=list)
    sums: Counter[str] = field(default_factory=Counter)
    returned: set[str] = field(default_factory=set)
    published: bool = False
    confirmed: bool = False
    acked: bool = False
    dropped: bool = False

    @property
    def open(self) -> bool:
        return not (self.acked or self.dropped)

    def finds(self, id: str) -> bool:
        return self.open and id not in self.returned


class LedgerMachine(RuleBasedStateMachine):
    """Each reply counts for itself."""

    sum_replies = False

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(sum_replies=self.sum_replies)
        self.owners = [FakeOwner() for _ in range(3)]
        self.models: list[Model] = []
        # In the order in which they are to be published.
        self.waiting: list[Model] = []
        self.by_id: dict[str, Model] = {}

    @rule(owner=st.integers(0, 2), entry_counts=st.lists(st.integers(1, 5), max_size=3))
    def add(self, owner: int, entry_counts: list[int]) -> None:
        added = [Model(package_of(entry_count), self.owners[owner]) for entry_count in entry_counts]
        self.ledger.add([model.package for model in added], self.owners[owner])
        self.models += added
        self.waiting += added

    @rule()
    def publish(self) -> None:
        publication = self.ledger.next_publication(now=0)
        if publication is None:
            assert not self.waiting
            return
        model = self.waiting.pop(0)
        assert publication.package is model.package
        assert publication.is_republication is bool(model.ids)
        assert publication.correlation_id not in self.by_id
        model.ids.append(publication.correlation_id)
        model.confirmed = False
        self.by_id[publication.correlation_id] = model

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        id, model = self._draw(data)
        happened = self.ledger.confirm(id, now=0)
        is_first = model.finds(id) and not model.published
        is_latest = model.finds(id) and not model.confirmed and id == model.ids[-1]
        assert _names(happened) == ["Published"] * is_first + ["Confirmed"] * is_latest
        self._check_of(happened, model)
        if model.finds(id):
            model.published = True
            model.confirmed = model.confirmed or id == model.ids[-1]

    @precondition(lambda self: self.by_id)
    @rule(data=st.data(), difference=st.sampled_from([None, -1, 0, 1]))
    def reply(self, data: st.DataObject, difference: int | None) -> None:
        id, model = self._draw(data)
        entry_count = model.package.entry_count
        count = 0 if difference is None else entry_count + difference
        happened = self.ledger.reply(id, count, now=0)
        self._check_of(happened, model)
        if not model.finds(id):
            assert happened == []
            return
        model.sums[id] = model.sums[id] + count if self.sum_replies else count
        if model.sums[id] < entry_count:
            assert happened == []
            return
        assert _names(happened) == (["Acked"] if model.published else ["Published", "Acked"])
        model.published = model.acked = True
        self._stop_waiting()

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        id, model = self._draw(data)
        expected = [Refused(model.owner, model.package, NACK)] if model.finds(id) else []
        assert self.ledger.reply(id, NACK, now=0) == expected

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        id, model = self._draw(data)
        happened = self.ledger.refuse_publication(id)
        assert len(happened) == model.finds(id)
        self._check_of(happened, model)

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def return_unroutable(self, data: st.DataObject) -> None:
        id, model = self._draw(data)
        expected = [Returned(model.owner, model.package)] if model.finds(id) else []
        assert self.ledger.return_publication(id) == expected
        model.returned.add(id)

    @rule(count=st.integers(0, 9))
    def what_nobody_sent(self, count: int) -> None:
        assert self.ledger.confirm("unknown", now=0) == []
        assert self.ledger.reply("unknown", count, now=0) == self.ledger.reply("unknown", NACK, now=0) == []

    @rule(owner=st.integers(0, 2))
    def drop(self, owner: int) -> None:
        self.ledger.drop(self.owners[owner])
        for model in self.models:
            if model.owner is self.owners[owner] and not model.acked:
                model.dropped = True
        self._stop_waiting()

    @rule(is_missing=st.booleans())
    def lose_the_publisher(self, is_missing: bool) -> None:
        unconfirmed = [model for model in self.models if model.open and not model.confirmed]
        happened = self.ledger.republish_unconfirmed("content" if is_missing else "revision")
        assert happened == ([Returned(model.owner, model.package) for model in unconfirmed] if is_missing else [])
        if not is_missing:
            self._wait(unconfirmed)

    @rule()
    def lose_the_reply_queue(self) -> None:
        self.ledger.republish_all()
        self._wait([model for model in self.models if model.open])

    def _draw(self, data: st.DataObject) -> tuple[str, Model]:
        id = list(self.by_id)[data.draw(st.integers(0, len(self.by_id) - 1))]
        return id, self.by_id[id]

    def _wait(self, models: list[Model]) -> None:
        self.waiting += [model for model in models if model not in self.waiting]

    def _stop_waiting(self) -> None:
        self.waiting = [model for model in self.waiting if model.open]

    def _check_of(self, happened: Iterable[PackageEvent], model: Model) -> None:
        assert all(event.owner is model.owner and event.package is model.package for event in happened)

    def teardown(self) -> None:
        for owner in self.owners:
            assert owner.events == []
            self.ledger.drop(owner)
        # Nothing is left of packages that are acked or dropped, however they were published.
        kept = {name: value for name, value in vars(self.ledger).items() if isinstance(value, dict)}
        assert kept
        assert not any(kept.values())


class SummingLedgerMachine(LedgerMachine):
    """Replies to one id are added up."""

    sum_replies = True


LedgerMachine.TestCase.settings = SummingLedgerMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None
)
TestLedger: Any = LedgerMachine.TestCase
TestSummingLedger: Any = SummingLedgerMachine.TestCase


def _names(events: Iterable[PackageEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def published(ledger: Ledger, now: float = 0) -> str:
    publication = ledger.next_publication(now)
    assert publication is not None
    return publication.correlation_id


def test_replies_to_two_ids_of_a_package_are_never_added_together() -> None:
    ledger = Ledger(sum_replies=True)
    ledger.add([package_of(10)], FakeOwner())
    first = published(ledger)
    ledger.republish_all()
    second = published(ledger)
    assert ledger.reply(first, 6, 0) == ledger.reply(second, 6, 0) == []
    assert _names(ledger.reply(second, 4, 0)) == ["Published", "Acked"]


def test_a_late_confirm_of_an_earlier_publication_does_not_confirm_the_latest() -> None:
    ledger, owner, package = Ledger(), FakeOwner(), package_of()
    ledger.add([package], owner)
    first = published(ledger, now=1)
    ledger.republish_all()
    published(ledger, now=5)
    assert ledger.confirm(first, now=6) == [Published(owner, package)]
    ledger.republish_unconfirmed()
    assert ledger.next_publication(now=7) is not None


@pytest.mark.parametrize("sum_replies", [False, True])
def test_a_reply_can_overtake_its_confirm(sum_replies: bool) -> None:
    ledger, owner, package = Ledger(sum_replies=sum_replies), FakeOwner(), package_of(7)
    ledger.add([package], owner)
    id = published(ledger, now=1)
    assert ledger.reply(id, 7, now=4) == [Published(owner, package), Acked(owner, package, 3)]
    assert ledger.confirm(id, now=5) == ledger.reply(id, 7, now=5) == []


def test_a_confirm_is_timed_from_the_latest_publication_and_an_ack_from_the_first() -> None:
    ledger, owner, package = Ledger(), FakeOwner(), package_of()
    ledger.add([package], owner)
    published(ledger, now=1)
    ledger.republish_unconfirmed()
    id = published(ledger, now=10)
    assert ledger.confirm(id, now=12) == [Published(owner, package), Confirmed(owner, package, 2)]
    ledger.republish_all()
    again = published(ledger, now=13)
    assert ledger.confirm(again, now=16) == [Confirmed(owner, package, 3)]
    assert ledger.reply(id, 1, now=20) == [Acked(owner, package, 19)]
