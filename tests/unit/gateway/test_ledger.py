"""Which packages are published and acked, whatever comes in whatever order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from provgate_broker.topology.policy import Exchange
from provgate_broker.wire.package import Nack
from provgate_gateway.publish.ledger import Ledger, OpenPackage
from provgate_gateway.write.splitting import Package

NACK = Nack("malformed", "not a package", 3)


class Owner:
    """A call: counts what it is told."""

    def __init__(self) -> None:
        self.published_packages: list[Package] = []
        self.acked_packages: list[Package] = []
        self.nacks = 0

    @property
    def published_count(self) -> int:
        return sum(package.entry_count for package in self.published_packages)

    @property
    def acked_count(self) -> int:
        return sum(package.entry_count for package in self.acked_packages)

    @property
    def told(self) -> tuple[int, int, int]:
        return len(self.published_packages), len(self.acked_packages), self.nacks

    def published(self, package: Package) -> None:
        self.published_packages.append(package)

    def acked(self, package: Package) -> None:
        self.acked_packages.append(package)

    def refused(self, nack: Nack) -> None:
        self.nacks += 1

    def returned(self, package: Package) -> None:
        raise NotImplementedError

    def nacked(self, package: Package, *, queue_is_full: bool) -> None:
        raise NotImplementedError


def package_of(entry_count: int) -> Package:
    return Package(Exchange.CONTENT, "content_add.unknown.0", b"", entry_count)


@dataclass
class Model:
    """What is known of one package that was added."""

    opened: OpenPackage
    owner: Owner
    entry_count: int
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


class LedgerMachine(RuleBasedStateMachine):
    """Each reply counts for itself."""

    sum_replies = False

    def __init__(self) -> None:
        super().__init__()
        numbers = count()
        self.ledger = Ledger(sum_replies=self.sum_replies, new_id=lambda: str(next(numbers)))
        self.owners = [Owner() for _ in range(3)]
        self.dropped_owners: dict[int, tuple[int, int, int]] = {}
        self.models: list[Model] = []
        self.by_id: dict[str, Model] = {}
        self.nacks: Counter[int] = Counter()

    @rule(owner=st.integers(0, 2), entry_count=st.integers(1, 5), published=st.booleans())
    def add(self, owner: int, entry_count: int, published: bool) -> None:
        if owner in self.dropped_owners:
            return
        opened = self.ledger.add(package_of(entry_count), self.owners[owner])
        self.models.append(Model(opened, self.owners[owner], entry_count))
        if published:
            self._publish(self.models[-1])

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.models))
        if model.open:
            self._publish(model)

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.by_id)))
        self.ledger.confirm(id)
        model = self.by_id[id]
        if model.open and id not in model.returned:
            model.published = True
            model.confirmed = model.confirmed or id == model.ids[-1]

    @precondition(lambda self: self.by_id)
    @rule(data=st.data(), share=st.sampled_from(["none", "less", "all", "more"]))
    def reply(self, data: st.DataObject, share: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.by_id)))
        model = self.by_id[id]
        number = {"none": 0, "less": model.entry_count - 1, "all": model.entry_count, "more": model.entry_count + 1}
        self.ledger.reply(id, number[share])
        if not model.open or id in model.returned:
            return
        model.sums[id] = model.sums[id] + number[share] if self.sum_replies else number[share]
        if model.sums[id] >= model.entry_count:
            model.published = model.acked = True

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.by_id)))
        self.ledger.reply(id, NACK)
        model = self.by_id[id]
        if model.open and id not in model.returned:
            self.nacks[self.owners.index(model.owner)] += 1

    @precondition(lambda self: self.by_id)
    @rule(data=st.data())
    def return_unroutable(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.by_id)))
        model = self.by_id[id]
        expected = model.opened if model.open and id not in model.returned else None
        assert self.ledger.take_returned(id) is expected
        model.returned.add(id)

    @rule(share=st.integers(0, 9))
    def what_nobody_sent(self, share: int) -> None:
        self.ledger.confirm("unknown")
        self.ledger.reply("unknown", share)
        self.ledger.reply("unknown", NACK)

    @rule(owner=st.integers(0, 2))
    def drop(self, owner: int) -> None:
        dropped = self.ledger.drop(self.owners[owner])
        models = [model for model in self.models if model.open and model.owner is self.owners[owner]]
        assert sorted(map(id, dropped)) == sorted(id(model.opened) for model in models)
        for model in models:
            model.dropped = True
        self.dropped_owners.setdefault(owner, self.owners[owner].told)

    @rule()
    def lose_the_publisher(self) -> None:
        expected = [model for model in self.models if model.open and not model.confirmed]
        assert list(self.ledger.unconfirmed()) == [model.opened for model in expected]
        for model in expected:
            self._publish(model)

    @rule()
    def lose_the_reply_queue(self) -> None:
        expected = [model for model in self.models if model.open]
        assert list(self.ledger.unacked()) == [model.opened for model in expected]
        for model in expected:
            self._publish(model)

    def _publish(self, model: Model) -> None:
        id = self.ledger.publication(model.opened)
        assert id not in self.by_id
        model.ids.append(id)
        model.confirmed = False
        self.by_id[id] = model

    @invariant()
    def every_package_is_told_once_and_only_what_is_true(self) -> None:
        for number, owner in enumerate(self.owners):
            models = [model for model in self.models if model.owner is owner]
            published = [model.opened.package for model in models if model.published]
            acked = [model.opened.package for model in models if model.acked]
            assert Counter(map(id, owner.published_packages)) == Counter(map(id, published))
            assert Counter(map(id, owner.acked_packages)) == Counter(map(id, acked))
            assert owner.nacks == self.nacks[number]

    @invariant()
    def published_is_at_least_acked_and_at_most_what_was_added(self) -> None:
        for owner in self.owners:
            added = sum(model.entry_count for model in self.models if model.owner is owner)
            assert added >= owner.published_count >= owner.acked_count

    @invariant()
    def nothing_is_told_after_a_drop(self) -> None:
        for number, told in self.dropped_owners.items():
            assert self.owners[number].told == told

    @invariant()
    def it_holds_what_is_open_and_finds_it_by_each_of_its_ids(self) -> None:
        assert len(self.ledger) == sum(model.open for model in self.models)
        assert all((model.opened in self.ledger) == model.open for model in self.models)
        for id, model in self.by_id.items():
            assert self.ledger.find(id) is (model.opened if model.open and id not in model.returned else None)

    def teardown(self) -> None:
        for owner in self.owners:
            self.ledger.drop(owner)
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


def test_replies_to_two_ids_of_a_package_are_never_added_together() -> None:
    ledger, owner = Ledger(sum_replies=True), Owner()
    opened = ledger.add(package_of(10), owner)
    first, second = ledger.publication(opened), ledger.publication(opened)
    ledger.reply(first, 6)
    ledger.reply(second, 6)
    assert owner.acked_count == 0
    ledger.reply(second, 4)
    assert owner.acked_count == owner.published_count == 10


def test_a_late_confirm_of_an_earlier_publication_does_not_confirm_the_latest() -> None:
    ledger, owner = Ledger(), Owner()
    opened = ledger.add(package_of(1), owner)
    first = ledger.publication(opened)
    ledger.publication(opened)
    ledger.confirm(first)
    assert owner.published_count == 1
    assert list(ledger.unconfirmed()) == [opened]


def test_the_confirm_of_a_returned_publication_counts_for_nothing() -> None:
    ledger, owner = Ledger(), Owner()
    opened = ledger.add(package_of(1), owner)
    id = ledger.publication(opened)
    assert ledger.take_returned(id) is opened
    ledger.confirm(id)
    assert owner.published_count == 0


@pytest.mark.parametrize("sum_replies", [False, True])
def test_a_reply_can_overtake_its_confirm(sum_replies: bool) -> None:
    ledger, owner = Ledger(sum_replies=sum_replies), Owner()
    id = ledger.publication(ledger.add(package_of(7), owner))
    ledger.reply(id, 7)
    ledger.confirm(id)
    ledger.reply(id, 7)
    assert owner.told == (1, 1, 0)


def test_correlation_ids_are_unique_without_being_told_how() -> None:
    ledger, owner = Ledger(), Owner()
    opened = ledger.add(package_of(1), owner)
    assert len({ledger.publication(opened) for _ in range(1000)}) == 1000
