"""What is held while a worker program waits for its broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from provgate_broker.amqp.connection import AmqpParameters
from provgate_workers.program.preparation import prepare
from provgate_workers.settings import WorkerConfiguration


class Storage:
    """Counts the storages that are open."""

    open_count = 0

    def open(self) -> None:
        Storage.open_count += 1

    def close(self) -> None:
        Storage.open_count -= 1


def test_no_storage_stays_open_while_the_broker_is_away() -> None:
    nowhere = SimpleNamespace(storage=Storage, parameters=AmqpParameters("amqp://127.0.0.1:1/", 10))
    open_counts: list[int] = []

    async def run() -> None:
        waited = asyncio.Event()

        def on_wait(_problem: str) -> None:
            open_counts.append(Storage.open_count)
            if len(open_counts) == 3:
                waited.set()

        preparing = asyncio.create_task(prepare(cast("WorkerConfiguration", nowhere), on_wait))
        async with asyncio.timeout(60):
            await waited.wait()
        preparing.cancel()

    asyncio.run(run())
    assert open_counts == [0, 0, 0]
