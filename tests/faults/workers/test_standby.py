"""Several worker programs: which one serves which range, and which one takes over."""

from __future__ import annotations

from typing import Final

import pytest

from provgate_broker.topology.policy import RangePolicy
from provgate_stack.processes.programs import WorkerProgram
from tests.faults.queues import active_programs
from tests.faults.system import RECOVERED_S, System
from tests.fix_stack import FEW_RANGES
from tests.integration.gateway_calls import eventually

pytestmark = pytest.mark.faults

# Long enough for the second program to be there before the first takes what is left.
STANDBY_DELAY_S: Final = 10.0

PREFERRED: Final = {"low": ["content.0-1"], "high": ["content.2-3", "directory", "location", "origin", "revision"]}
QUEUES: Final = {queue.name for queue in RangePolicy.of(FEW_RANGES).queues()}


@pytest.mark.parametrize(
    "order", [("low", "high"), pytest.param(("high", "low"), marks=pytest.mark.long)], ids="-".join
)
def test_two_share_the_ranges_by_preference_and_each_stands_in_for_the_other(
    system: System, order: tuple[str, str]
) -> None:
    def serving() -> dict[str, WorkerProgram]:
        return active_programs(system.node, system.url, system.stack.workers)

    def started(name: str, standby_delay_s: float = STANDBY_DELAY_S) -> WorkerProgram:
        return system.stack.start_workers(wait=False, preferred=PREFERRED[name], standby_delay=standby_delay_s)

    def wait_split(expected: dict[str, WorkerProgram]) -> None:
        # Election is per queue: they follow one another.
        eventually(lambda: serving() == expected, "every queue is served by the expected program", RECOVERED_S)

    programs: dict[str, WorkerProgram] = {}
    for name in order:
        program = programs[name] = started(name)
        eventually(lambda program=program: program in serving().values(), f"{name} serves", RECOVERED_S)  # type: ignore[misc]
    split = {queue: programs["low" if is_low(queue) else "high"] for queue in QUEUES}
    wait_split(split)
    system.stack.start_gateway(listen=system.stack.address)
    with system.load() as load:
        load.wait_for_acks()
        for program in programs.values():
            program.wait_ready()
        # Each is registered for everything by now, and has taken nothing from the other.
        assert serving() == split
        programs["low"].kill()
        load.wait_for_acks(RECOVERED_S)
        wait_split(dict.fromkeys(QUEUES, programs["high"]))
        added = started("low", standby_delay_s=0)
        added.wait_ready()
        assert serving() == dict.fromkeys(QUEUES, programs["high"])
        programs["high"].kill()
        load.wait_for_acks(RECOVERED_S)
        wait_split(dict.fromkeys(QUEUES, added))
        system.check_all_acked(load)


def is_low(queue: str) -> bool:
    method, relation, range_number = queue.split(".")
    return range_number in "01" and (method == "content_add" or relation.startswith("content_"))
