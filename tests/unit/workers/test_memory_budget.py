from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from provgate_broker.consume.delivery import Delivery
from provgate_broker.topology.policy import OPERATIONS, Operation, binding_key, parse_binding_key
from provgate_workers.consume.memory_budget import MemoryBudget
from tests.unit.deliveries import delivery

BOUND = 400
SHARE = 100
QUEUES = [binding_key(operation, number) for operation in OPERATIONS[:3] for number in range(2)]
A, OTHER_OF_A, B = QUEUES[:3]
OPERATION_OF = {queue: parse_binding_key(queue)[0] for queue in QUEUES}


def new_budget() -> MemoryBudget:
    return MemoryBudget(BOUND, OPERATION_OF)


def package(queue: str, size_bytes: int, *, redelivered: bool = False) -> Delivery:
    return delivery(queue, b"b" * size_bytes, redelivered=redelivered)


def take(budget: MemoryBudget, package: Delivery) -> bool:
    """Does what a process does with a delivery."""
    if budget.admit(package, reserved=budget.claim_reservation(package)):
        return True
    budget.defer(package)
    return False


def test_memory_that_is_free_is_reserved_once() -> None:
    budget = new_budget()
    held = [package(queue, 100) for queue in (A, B)]
    assert all(take(budget, each) for each in held)
    assert not any(take(budget, package(queue, 60)) for queue in (A, OTHER_OF_A, B))
    granted: list[str] = []
    for each in held:
        budget.free(each)
        granted += [deferred.queue for deferred in budget.requeues(0.0)]
    # The second package of the first operation has to wait until the first one is stored.
    assert granted == [A, B]
    assert (budget.held_bytes, budget.reserved_bytes) == (0, 120)
    assert take(budget, package(A, 60, redelivered=True))
    assert budget.requeues(0.0) == []


def test_others_do_not_overtake_what_waits() -> None:
    budget = MemoryBudget(100, {queue: OPERATION_OF[queue] for queue in QUEUES})
    large = package(A, 90)
    assert take(budget, large)
    assert not take(budget, package(B, 20))
    # It would fit.
    assert not take(budget, package(QUEUES[4], 5))
    budget.free(large)
    assert [deferred.queue for deferred in budget.requeues(0.0)] == [B, QUEUES[4]]


def test_a_package_larger_than_the_bound_is_held_alone() -> None:
    budget = new_budget()
    small, large = package(A, 1), package(B, 1000)
    assert take(budget, small)
    assert not take(budget, large)
    budget.free(small)
    assert [deferred.queue for deferred in budget.requeues(0.0)] == [B]
    assert not take(budget, package(A, 1))
    assert take(budget, package(B, 1000, redelivered=True))
    budget.free(large)
    assert [deferred.queue for deferred in budget.requeues(0.0)] == [A]


def test_a_reservation_for_a_package_that_does_not_come_expires() -> None:
    budget = new_budget()
    held = package(A, 100)
    assert take(budget, held)
    assert not take(budget, package(A, 100))
    budget.free(held)
    assert len(budget.requeues(5.0)) == 1
    budget.expire_reservations(5.0)
    assert budget.reserved_bytes == 100
    budget.expire_reservations(5.1)
    assert budget.reserved_bytes == 0
    assert take(budget, package(A, 100))


def test_no_package_goes_back_more_than_once() -> None:
    """A broker with 80 full queues, and confirms of all that is in hand at once."""
    prefetch_count, mib = 10, 2**20
    keys = [binding_key(operation, number) for operation in OPERATIONS[:5] for number in range(16)]
    budget = MemoryBudget(16 * mib, {key: parse_binding_key(key)[0] for key in keys})
    body = b"b" * mib
    queues = {key: deque(delivery(key, body, delivery_tag=number) for number in range(20)) for key in keys}
    unacked, requeued = Counter[str](), Counter[tuple[str, int]]()
    stored_count = 0
    while any(queues.values()):
        held: list[Delivery] = []
        for key, queue in queues.items():
            while queue and unacked[key] < prefetch_count:
                unacked[key] += 1
                if take(budget, package := queue.popleft()):
                    held.append(package)
        assert 0 < len(held) <= 16
        for package in held:
            unacked[package.queue] -= 1
            stored_count += 1
            budget.free(package)
            for granted in budget.requeues(0.0):
                requeued[granted.queue, granted.delivery_tag] += 1
                unacked[granted.queue] -= 1
                queues[granted.queue].appendleft(replace(granted, body=body, redelivered=True))
    assert (stored_count, max(requeued.values())) == (80 * 20, 1)


class BudgetMachine(RuleBasedStateMachine):
    """The bound holds, whatever comes and goes, and nothing waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = new_budget()
        self.held: list[Delivery] = []
        self.deferred: list[tuple[str, int]] = []
        self.requeued: list[tuple[str, int]] = []

    def take(self, package: Delivery) -> None:
        if take(self.budget, package):
            self.held.append(package)
        else:
            self.deferred.append((package.queue, len(package.body)))

    def grant(self) -> None:
        for granted in self.budget.requeues(0.0):
            assert granted.body == b""
            size_bytes = next(size_bytes for queue, size_bytes in self.deferred if queue == granted.queue)
            self.deferred.remove((granted.queue, size_bytes))
            self.requeued.append((granted.queue, size_bytes))

    @rule(queue=st.sampled_from(QUEUES), size_bytes=st.integers(1, 150) | st.just(1000))
    def deliver(self, queue: str, size_bytes: int) -> None:
        self.take(package(queue, size_bytes))

    @precondition(lambda self: self.requeued)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        queue, size_bytes = data.draw(st.sampled_from(self.requeued))
        self.requeued.remove((queue, size_bytes))
        held_count = len(self.held)
        self.take(package(queue, size_bytes, redelivered=True))
        assert len(self.held) == held_count + 1, "memory was reserved for it"

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, 10))
    def settle(self, data: st.DataObject, count: int) -> None:
        # As many as one confirm may cover.
        for _ in range(min(count, len(self.held))):
            package = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.budget.free(package)
            self.grant()

    @rule(queue=st.sampled_from(QUEUES))
    def take_back(self, queue: str) -> None:
        taken = self.budget.drop_deferred(queue)
        assert len(taken) == sum(of_queue == queue for of_queue, _ in self.deferred)
        for package in [each for each in self.held if each.queue == queue]:
            self.held.remove(package)
            self.budget.free(package)
        self.deferred = [each for each in self.deferred if each[0] != queue]
        self.requeued = [each for each in self.requeued if each[0] != queue]
        self.grant()

    @invariant()
    def held_and_reserved_never_exceed_the_bound(self) -> None:
        admitted = [(package.queue, len(package.body)) for package in self.held]
        everything = admitted + self.requeued
        total = sum(size_bytes for _, size_bytes in everything)
        assert total == self.budget.held_bytes + self.budget.reserved_bytes
        assert total <= BOUND or len(everything) == 1, f"{total} bytes are held or reserved, the bound is {BOUND}"
        counts, sizes = Counter[Operation](), Counter[Operation]()
        for queue, size_bytes in everything:
            counts[OPERATION_OF[queue]] += 1
            sizes[OPERATION_OF[queue]] += size_bytes
        assert all(sizes[operation] <= SHARE or counts[operation] == 1 for operation in counts)

    @invariant()
    def something_is_in_hand_or_on_its_way_where_something_waits(self) -> None:
        assert self.held or self.requeued or not self.deferred


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=100, stateful_step_count=50)
