"""Several worker programs: who serves which range, and who takes over."""

from __future__ import annotations

import pytest

from provgate_broker.topology.policy import RangePolicy
from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.load import Load, check_all_acked
from tests.support.broker import active_programs
from tests.support.fix_stack import FEW_RANGES
from tests.support.loss_checker import Checker
from tests.support.polling import eventually

pytestmark = pytest.mark.faults

TAKEN_OVER_S = 60.0

# Long enough for the second program to be there before the first takes what is left.
STANDBY_DELAY_S = 10.0

PREFERRED = {"low": ["content.0-1"], "high": ["content.2-3", "directory", "location", "origin", "revision"]}
QUEUES = {queue.name for queue in RangePolicy.of(FEW_RANGES).queues()}


@pytest.mark.parametrize("order", [("low", "high"), ("high", "low")], ids="-".join)
def test_two_share_the_ranges_by_preference_and_each_stands_in_for_the_other(
    small_stack: Stack,
    rabbitmq_node: RabbitMqNode,
    broker_url: str,
    storage_config: StorageConfig,
    checker: Checker,
    order: tuple[str, str],
) -> None:
    def serving() -> dict[str, WorkerProgram]:
        return active_programs(rabbitmq_node, broker_url, small_stack.workers)

    def started(name: str, standby_delay_s: float = STANDBY_DELAY_S) -> WorkerProgram:
        return small_stack.start_workers(wait=False, preferred=PREFERRED[name], standby_delay=standby_delay_s)

    def wait_serving(name: str) -> None:
        eventually(lambda: programs[name] in serving().values(), f"{name} serves", TAKEN_OVER_S)

    def wait_split(expected: dict[str, WorkerProgram]) -> None:
        # Election is per queue: they follow one another.
        eventually(lambda: serving() == expected, "every queue is served by whom it should be", TAKEN_OVER_S)

    programs: dict[str, WorkerProgram] = {}
    for name in order:
        programs[name] = started(name)
        wait_serving(name)
    split = {queue: programs["low" if is_low(queue) else "high"] for queue in QUEUES}
    wait_split(split)
    small_stack.start_gateway(listen=small_stack.address)
    with Load(small_stack.address, checker) as load:
        load.wait_for_acks()
        for program in programs.values():
            program.wait_ready()
        # Each is registered for everything by now, and has taken nothing from the other.
        assert serving() == split
        programs["low"].kill()
        load.wait_for_acks(TAKEN_OVER_S)
        wait_split(dict.fromkeys(QUEUES, programs["high"]))
        added = started("low", standby_delay_s=0)
        added.wait_ready()
        assert serving() == dict.fromkeys(QUEUES, programs["high"])
        programs["high"].kill()
        load.wait_for_acks(TAKEN_OVER_S)
        wait_split(dict.fromkeys(QUEUES, added))
        check_all_acked(load, checker, storage_config)


def is_low(queue: str) -> bool:
    method, relation, range_number = queue.split(".")
    return range_number in "01" and (method == "content_add" or relation.startswith("content_"))
