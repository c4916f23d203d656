"""How fast entries may come in."""

from __future__ import annotations

from provgate_gateway.write.flow_control import EntryRate


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_message_is_taken_where_there_is_no_debt_however_large_it_is() -> None:
    clock = Clock()
    rate = EntryRate(100, clock)
    assert rate.take_turn(1000) == 0
    assert rate.wait_s() == 9
    clock.now_s += 8.5
    assert rate.wait_s() == 0.5
    clock.now_s += 0.5
    assert rate.take_turn(1000) == 0


def test_turns_are_given_in_the_order_in_which_they_are_taken() -> None:
    rate = EntryRate(100, Clock())
    assert [rate.take_turn(200) for _ in range(4)] == [0, 1, 3, 5]


def test_the_bucket_holds_the_entries_of_a_second() -> None:
    clock = Clock()
    rate = EntryRate(100, clock)
    clock.now_s += 60
    assert rate.take_turn(100) == 0
    assert rate.take_turn(100) == 0
    assert rate.take_turn(100) == 1


def test_who_did_not_wait_does_not_count() -> None:
    rate = EntryRate(100, Clock())
    rate.take_turn(200)
    rate.take_turn(500)
    rate.give_back(500)
    assert rate.wait_s() == 1


def test_over_time_no_more_than_the_rate_comes_in() -> None:
    clock = Clock()
    start_s, rate, taken = clock.now_s, EntryRate(100, clock), 0
    for number in range(1, 200):
        clock.now_s += rate.take_turn(number)
        # Before this message: what was there at the start, and what came since.
        assert taken <= 100 + (clock.now_s - start_s) * 100 + 1e-6
        taken += number
