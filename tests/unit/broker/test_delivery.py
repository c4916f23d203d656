"""What is believed of a delivery's headers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from provgate_broker.consume.delivery import DELIVERY_COUNT_HEADER
from tests.unit.deliveries import delivery


def test_redeliveries_are_those_that_the_broker_counted() -> None:
    assert delivery().redelivery_count == 0
    assert delivery(headers={DELIVERY_COUNT_HEADER: 11}).redelivery_count == 11
    assert delivery(headers={"provgate-redeliveries": 11}, redelivered=True).redelivery_count == 0


@given(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()) | st.floats())
def test_a_forged_count_is_a_count_or_nothing(value: Any) -> None:
    assert delivery(headers={DELIVERY_COUNT_HEADER: value}).redelivery_count >= 0
