"""What a worker program does while it waits for its broker."""

from __future__ import annotations

import asyncio
from typing import cast

from provgate_broker.amqp.connection import AmqpParameters
from provgate_workers.program.preparation import prepare
from provgate_workers.program.readiness import ProgramReadiness
from provgate_workers.settings import WorkerConfiguration


class Nowhere:
    """A configuration whose broker is away, and its storage; notes how many storages are open at each wait."""

    parameters = AmqpParameters("amqp://127.0.0.1:1/", 10)

    def __init__(self) -> None:
        self.open_count = 0
        self.open_counts: list[int] = []
        self.waited_enough = asyncio.Event()

    def storage(self) -> Nowhere:
        return self

    def open(self) -> None:
        self.open_count += 1

    def close(self) -> None:
        self.open_count -= 1

    def waits(self, problem: str) -> None:
        assert problem.startswith("the broker cannot be used yet: ")
        self.open_counts.append(self.open_count)
        if len(self.open_counts) == 3:
            self.waited_enough.set()


def test_no_storage_stays_open_while_the_broker_is_away() -> None:
    async def run() -> None:
        nowhere = Nowhere()
        preparing = asyncio.create_task(
            prepare(cast("WorkerConfiguration", nowhere), cast("ProgramReadiness", nowhere))
        )
        async with asyncio.timeout(60):
            await nowhere.waited_enough.wait()
        preparing.cancel()
        assert nowhere.open_counts == [0, 0, 0]

    asyncio.run(run())
