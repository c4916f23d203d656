"""How many ranges the queues of a broker show."""

from __future__ import annotations

import pytest

from provgate_broker.topology.inspection import shown_range_count


@pytest.mark.parametrize(
    ("present", "shown"),
    [
        (range(16), 16),
        (range(8), 8),
        (range(1), 1),
        # A queue of the count that is configured is missing: it is no count of its own.
        ([0, 1, 2, 3, 4, 6, 7], 16),
        (range(15), 16),
        ([], 16),
        (range(8, 16), 16),
    ],
)
def test_fewer_ranges_are_the_first_of_a_power_of_two(present: list[int], shown: int) -> None:
    assert shown_range_count(frozenset(present), 16) == shown
