from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from provgate_workers.room import Room

BOUND = 100
PREFETCH = 2


def test_a_package_that_does_not_fit_cuts_its_queue_off_until_half_is_free() -> None:
    room = Room(BOUND, PREFETCH)
    assert room.admit("a", 20)
    assert room.admit("a", 40)
    assert not room.admit("b", 41)
    assert room.admit("a", 40)
    assert room.leave(40) == []
    assert room.leave(40) == []
    assert room.leave(20) == ["b"]
    assert room.leave(0) == []


def test_queues_are_let_in_as_far_as_their_largest_packages_would_fit() -> None:
    room = Room(BOUND, PREFETCH)
    assert room.admit("a", 100)
    for queue in ("b", "c", "d"):
        assert not room.admit(queue, 25)
    assert room.leave(100) == ["b", "c"]
    assert room.admit("b", 10)
    assert room.leave(10) == ["d"]


def test_a_package_larger_than_the_bound_is_let_in_alone() -> None:
    room = Room(BOUND, PREFETCH)
    assert room.admit("a", 1)
    assert not room.admit("b", 1000)
    assert room.leave(1) == ["b"]
    assert room.admit("b", 1000)
    assert not room.admit("a", 1)
    assert room.leave(1000) == ["a"]


class RoomMachine(RuleBasedStateMachine):
    """The bound holds, and no queue stays cut off when nothing is in hand."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(BOUND, PREFETCH)
        self.held: list[int] = []
        self.cut_off: set[str] = set()

    @rule(queue=st.sampled_from("abcdef"), size_bytes=st.integers(0, 150))
    def deliver(self, queue: str, size_bytes: int) -> None:
        if self.room.admit(queue, size_bytes):
            assert not sum(self.held) or sum(self.held) + size_bytes <= BOUND
            self.held.append(size_bytes)
        else:
            self.cut_off.add(queue)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.held:
            self.held.remove(size_bytes := data.draw(st.sampled_from(self.held)))
            readmitted = self.room.leave(size_bytes)
            assert set(readmitted) <= self.cut_off
            assert len(set(readmitted)) == len(readmitted)
            self.cut_off -= set(readmitted)
            if self.cut_off and not sum(self.held):
                assert readmitted

    @rule()
    def forget(self) -> None:
        self.room.forget_cut_off()
        self.cut_off.clear()

    @invariant()
    def what_is_held_is_counted(self) -> None:
        assert self.room.held_bytes == sum(self.held)


TestRoom = RoomMachine.TestCase
TestRoom.settings = settings(max_examples=60, stateful_step_count=40)
