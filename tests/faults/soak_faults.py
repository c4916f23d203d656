"""The faults of the soak: which there are, when each comes, and how it is made and ended."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provgate_stack.processes.programs import ReadyFileProgram
from provgate_stack.servers.postgresql import PostgreSqlCluster
from tests.faults.system import System
from tests.support.link import Link, Mode

_GAP_S: Final = (2.0, 5.0)
_HOLD_S: Final = (2.0, 8.0)
_TINY_WATERMARK: Final = "0.0000001"

_FAULTS: Final = {
    "worker program": ("killed", "terminated", "suspended"),
    "gateway": ("killed", "terminated", "suspended"),
    "broker": ("restarted", "killed", "closes all connections", "in memory alarm"),
    "database": ("restarted, immediate", "restarted, fast"),
    "link to the broker": ("black-holed", "reset"),
    "link to the database": ("black-holed", "reset"),
}


@dataclass(frozen=True)
class Draw:
    """A fault that was drawn.

    Attributes:
        after_s: how long nothing is broken before it.
        subject: what breaks.
        fault: how.
        hold_s: how long it lasts, if the test ends it.
        pick: chooses one of two gateways or worker programs: 0 or 1.
    """

    after_s: float
    subject: str
    fault: str
    hold_s: float
    pick: int


def draws(seed: int) -> Iterator[Draw]:
    """Yields faults without end, the same for the same seed. Each comes once before any comes again."""
    drawn = random.Random(seed)
    every = [(subject, fault) for subject, faults in _FAULTS.items() for fault in faults]
    while True:
        for subject, fault in drawn.sample(every, len(every)):
            yield Draw(drawn.uniform(*_GAP_S), subject, fault, drawn.uniform(*_HOLD_S), drawn.randrange(2))


@dataclass
class Scene:
    """What is broken: a system of two worker programs and two gateways that reach their servers over links."""

    system: System
    cluster: PostgreSqlCluster
    broker_link: Link
    database_link: Link

    @property
    def programs(self) -> list[ReadyFileProgram]:
        """The programs of the system."""
        return [*self.system.stack.workers, *self.system.stack.gateways]

    def inflict(self, draw: Draw) -> None:
        """Makes a fault and ends it; returns when everything that it stopped is up again."""
        match draw.subject:
            case "worker program":
                _break_program(self.system.stack.workers[draw.pick], draw)
            case "gateway":
                _break_program(self.system.stack.gateways[draw.pick], draw)
            case "broker":
                self._break_broker(draw)
            case "database":
                self.cluster.restart("immediate" if draw.fault.endswith("immediate") else "fast")
            case "link to the broker":
                _break_link(self.broker_link, draw)
            case "link to the database":
                _break_link(self.database_link, draw)

    def _break_broker(self, draw: Draw) -> None:
        node = self.system.node
        match draw.fault:
            case "restarted":
                node.restart()
            case "killed":
                node.kill()
                node.start()
            case "closes all connections":
                node.ctl("close_all_connections", "the soak")
            case "in memory alarm":
                watermark = node.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
                node.ctl("set_vm_memory_high_watermark", _TINY_WATERMARK)
                try:
                    time.sleep(draw.hold_s)
                finally:
                    node.ctl("set_vm_memory_high_watermark", watermark)


def _break_program(program: ReadyFileProgram, draw: Draw) -> None:
    if draw.fault == "suspended":
        program.stop()
        try:
            time.sleep(draw.hold_s)
        finally:
            program.cont()
        return
    if draw.fault == "killed":
        program.kill()
    else:
        code = program.terminate(timeout_s=60)
        assert code == 0, f"{program.command[0]} ended with {code}: {program.log_path}"
    program.start()
    program.wait_ready()


def _break_link(link: Link, draw: Draw) -> None:
    if draw.fault == "reset":
        link.reset()
        return
    link.mode = Mode.BLACK_HOLE
    try:
        time.sleep(draw.hold_s)
    finally:
        link.mode = Mode.PASS
