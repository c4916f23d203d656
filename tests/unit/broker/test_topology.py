"""The queues that set-up declares, and the range counts that queues show."""

from __future__ import annotations

import pytest

from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import (
    DEAD_LETTER_QUEUE,
    QUARANTINE_QUEUE,
    expected_queues,
    queue_arguments,
)
from provgate_broker.topology.inspection import shown_range_count
from provgate_broker.topology.policy import RangePolicy
from provgate_runtime import ConfigurationError, convert

ARGUMENTS = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length-bytes": 1024**3}


def test_work_queues_have_a_single_active_consumer_and_the_other_two_do_not() -> None:
    queues = expected_queues(RabbitMqSettings(), RangePolicy(), (3, 10, 8))
    others = {DEAD_LETTER_QUEUE, QUARANTINE_QUEUE}
    assert len(queues) == 162
    assert {name for name, arguments in queues.items() if arguments == ARGUMENTS} == others
    assert all(queues[name] == ARGUMENTS | {"x-single-active-consumer": True} for name in queues.keys() - others)


def test_no_other_type_of_queue_can_be_configured() -> None:
    with pytest.raises(ConfigurationError, match="queue_type"):
        convert({"queue_type": "classic"}, RabbitMqSettings, "provenance.rabbitmq")


@pytest.mark.parametrize(
    ("version", "limit"),
    [((3, 10, 0), None), ((3, 13, 7), None), ((4, 0), -1), ((4, 0, 0), -1), ((4, 1, 2), -1), ((10, 0, 0), -1)],
)
@pytest.mark.parametrize("single_active_consumer", [True, False])
def test_from_rabbitmq_4_on_queues_have_no_delivery_limit(
    version: tuple[int, ...], limit: int | None, single_active_consumer: bool
) -> None:
    # By default such a broker drops a message after 20 redeliveries; an older one reads -1 as 0.
    found = queue_arguments(RabbitMqSettings(), version, single_active_consumer=single_active_consumer)
    assert found.get("x-delivery-limit") == limit


@pytest.mark.parametrize(
    ("present", "shown"),
    [
        (range(16), 16),
        (range(8), 8),
        (range(1), 1),
        # One queue of the configured count is missing: that is no other count.
        ([0, 1, 2, 3, 4, 6, 7], 16),
        (range(15), 16),
        ([], 16),
        (range(8, 16), 16),
    ],
)
def test_a_smaller_range_count_is_a_power_of_two_from_the_first_range_on(present: list[int], shown: int) -> None:
    assert shown_range_count(frozenset(present), 16) == shown
