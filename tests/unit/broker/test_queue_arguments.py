"""What queues are declared with, by the version of the broker."""

from __future__ import annotations

import pytest

from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import queue_arguments


@pytest.mark.parametrize(
    ("version", "limit"),
    [((3, 10, 0), None), ((3, 13, 7), None), ((4, 0), -1), ((4, 0, 0), -1), ((4, 1, 2), -1), ((10, 0, 0), -1)],
)
@pytest.mark.parametrize("single_active_consumer", [True, False])
def test_from_rabbitmq_4_on_a_queue_is_told_not_to_drop_what_is_redelivered(
    version: tuple[int, ...], limit: int | None, single_active_consumer: bool
) -> None:
    # Without it such a broker drops a message after 20 redeliveries; an older one would take -1 for 0.
    found = queue_arguments(RabbitMqSettings(), version, single_active_consumer=single_active_consumer)
    assert found.get("x-delivery-limit") == limit
