"""The faults of the soak: which there are, when each comes, and how it is made and ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from provgate_stack.processes.programs import ReadyFileProgram
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.support.link import Link, Mode

_GAP_S: Final = (2.0, 5.0)
_HOLD_S: Final = (2.0, 8.0)
_TINY_WATERMARK: Final = "0.0000001"


@dataclass(frozen=True)
class Draw:
    """A fault that was drawn.

    Attributes:
        after_s: how long nothing is broken before it.
        kind: one of `Scene.faults`.
        hold_s: how long it lasts, where that is for the test to say.
        pick: chooses among equals, two gateways for example: 0 or 1.
    """

    after_s: float
    kind: str
    hold_s: float
    pick: int


def draws(seed: int, kinds: list[str]) -> Iterator[Draw]:
    """Yields faults without end, the same for the same seed. Each kind comes once before any comes again."""
    drawn = random.Random(seed)
    while True:
        for kind in drawn.sample(kinds, len(kinds)):
            yield Draw(drawn.uniform(*_GAP_S), kind, drawn.uniform(*_HOLD_S), drawn.randrange(2))


class Scene:
    """What is broken: a stack of two worker programs and two gateways whose ways to the servers lead over links.

    Each fault is made and ended by one call, which returns when everything that it stopped is up again.
    """

    def __init__(
        self,
        stack: Stack,
        node: RabbitMqNode,
        cluster: PostgreSqlCluster,
        broker_link: Link,
        database_link: Link,
    ) -> None:
        self._stack = stack
        self._node = node
        self._cluster = cluster
        self._watermark = node.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
        workers, gateways = self._worker, self._gateway
        self.faults: Mapping[str, Callable[[Draw], object]] = {
            "worker program killed": partial(_kill, workers),
            "worker program terminated": partial(_terminate, workers),
            "worker program suspended": partial(_suspend, workers),
            "gateway killed": partial(_kill, gateways),
            "gateway terminated": partial(_terminate, gateways),
            "gateway suspended": partial(_suspend, gateways),
            "broker restarted": lambda _: node.restart(),
            "broker killed": self._kill_broker,
            "broker closes all connections": lambda _: _drop(node.ctl("close_all_connections", "the soak")),
            "broker in memory alarm": self._raise_alarm,
            "database restarted, immediate": lambda _: cluster.restart("immediate"),
            "database restarted, fast": lambda _: cluster.restart("fast"),
            "link to the broker black-holed": partial(_black_hole, broker_link),
            "link to the broker reset": lambda _: broker_link.reset(),
            "link to the database black-holed": partial(_black_hole, database_link),
            "link to the database reset": lambda _: database_link.reset(),
        }

    @property
    def programs(self) -> list[ReadyFileProgram]:
        """The programs of the stack."""
        return [*self._stack.workers, *self._stack.gateways]

    def inflict(self, draw: Draw) -> None:
        """Makes a fault and ends it."""
        self.faults[draw.kind](draw)

    def _worker(self, draw: Draw) -> ReadyFileProgram:
        return self._stack.workers[draw.pick]

    def _gateway(self, draw: Draw) -> ReadyFileProgram:
        return self._stack.gateways[draw.pick]

    def _kill_broker(self, draw: Draw) -> None:
        self._node.kill()
        self._node.start()

    def _raise_alarm(self, draw: Draw) -> None:
        self._node.ctl("set_vm_memory_high_watermark", _TINY_WATERMARK)
        try:
            time.sleep(draw.hold_s)
        finally:
            self._node.ctl("set_vm_memory_high_watermark", self._watermark)


_Choice = Callable[[Draw], ReadyFileProgram]


def _kill(choose: _Choice, draw: Draw) -> None:
    program = choose(draw)
    program.kill()
    _start(program)


def _terminate(choose: _Choice, draw: Draw) -> None:
    program = choose(draw)
    code = program.terminate(timeout_s=60)
    assert code == 0, f"{program.command[0]} ended with {code}: {program.log_path}"
    _start(program)


def _suspend(choose: _Choice, draw: Draw) -> None:
    program = choose(draw)
    program.stop()
    try:
        time.sleep(draw.hold_s)
    finally:
        program.cont()


def _black_hole(link: Link, draw: Draw) -> None:
    link.mode = Mode.BLACK_HOLE
    try:
        time.sleep(draw.hold_s)
    finally:
        link.mode = Mode.PASS


def _start(program: ReadyFileProgram) -> None:
    program.start()
    program.wait_ready()


def _drop(_printed: str) -> None:
    """Makes a procedure of what returns a text."""
