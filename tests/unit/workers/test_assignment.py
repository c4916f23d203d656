from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_broker.topology.policy import RANGE_COUNTS, Exchange, RangePolicy
from provgate_runtime import ConfigurationError
from provgate_workers.program.assignment import Range, all_ranges, deal, preferred_ranges

POLICY = RangePolicy()
policies = st.fixed_dictionaries({}, optional={exchange.value: st.sampled_from(RANGE_COUNTS) for exchange in Exchange})


def test_there_are_80_ranges() -> None:
    assert len(set(all_ranges(POLICY))) == 80


@given(policies, st.integers(1, 300), st.data())
def test_every_range_is_dealt_to_one_process_and_evenly(
    counts: dict[str, int], process_count: int, data: st.DataObject
) -> None:
    policy = RangePolicy.of(counts)
    ranges = all_ranges(policy)
    preferred = frozenset(data.draw(st.sets(st.sampled_from(ranges))))
    assignments = deal(policy, preferred, process_count)
    assert len(assignments) == min(process_count, len(ranges))
    dealt = [card for assignment in assignments for card in (*assignment.preferred, *assignment.standby)]
    assert sorted(dealt) == sorted(ranges)
    assert {card for assignment in assignments for card in assignment.preferred} == preferred
    for sizes in (
        [len(assignment.preferred) for assignment in assignments],
        [len(assignment.standby) for assignment in assignments],
        [len(assignment.preferred) + len(assignment.standby) for assignment in assignments],
    ):
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ([], 80),
        (["content"], 16),
        (["content.0-7"], 8),
        (["content.8-f", "location"], 24),
        (["content.a"], 1),
        (["content.0-f", "content.3-4"], 16),
    ],
    ids=str,
)
def test_ranges_are_preferred_by_name(texts: list[str], count: int) -> None:
    assert len(preferred_ranges(texts, POLICY)) == count


def test_ends_are_hexadecimal_and_included() -> None:
    assert preferred_ranges(["origin.9-b"], POLICY) == {Range(Exchange.ORIGIN, number) for number in (9, 10, 11)}


@pytest.mark.parametrize(
    "text",
    ["", "snapshot", "content.", "content.g", "content.7-0", "content.0-10", "content.0-1-2", ".0", "content.-1"],
)
def test_a_text_that_names_no_range_is_an_error_at_its_key(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^provenance\.rabbitmq\.preferred\[1\]: "):
        preferred_ranges(["content", text], POLICY)


@given(st.text(max_size=12) | st.text(max_size=6).map("content.{}".format))
def test_any_text_names_ranges_or_is_an_error(text: str) -> None:
    try:
        preferred = preferred_ranges([text], POLICY)
    except ConfigurationError:
        return
    assert preferred <= set(all_ranges(POLICY))
