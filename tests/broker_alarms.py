"""A broker that blocks publishers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.integration.gateway_calls import eventually


def alarms(node: RabbitMqNode) -> str:
    """Returns the alarms of a node, as Erlang writes them."""
    return node.evaluate("rabbit_alarm:get_alarms().")


@contextmanager
def alarm(node: RabbitMqNode, resource: str) -> Iterator[None]:
    """Has the broker block publishers, for want of `memory` or `disk`."""
    watermark = node.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
    limits = {
        "memory": (("set_vm_memory_high_watermark", "0.0000001"), ("set_vm_memory_high_watermark", watermark)),
        "disk": (("set_disk_free_limit", str(10**15)), ("set_disk_free_limit", "50MB")),
    }
    raise_alarm, end_alarm = limits[resource]
    node.ctl(*raise_alarm)
    try:
        eventually(lambda: resource in alarms(node), "there is an alarm")
        yield
    finally:
        node.ctl(*end_alarm)
