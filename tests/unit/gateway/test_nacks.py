"""What calls are told of packages that the broker refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from provgate_broker.errors import ConnectionLostError
from provgate_broker.topology.declaration import QueueState
from provgate_broker.topology.policy import Exchange
from provgate_gateway.publish import nacks as module
from provgate_gateway.publish.nacks import Nacks
from provgate_gateway.write.splitting import Package
from tests.support.polling import until
from tests.unit.gateway.test_ledger import Owner

QUEUE = "content_add.unknown.0"
MIB = 1024 * 1024
PACKAGE = Package(Exchange.CONTENT, QUEUE, b"x" * 10_000, 1)


class Told(Owner):
    """A call that notes whether its queue was said to be full."""

    def __init__(self) -> None:
        super().__init__()
        self.full: list[bool] = []

    def nacked(self, package: Package, *, queue_is_full: bool) -> None:
        self.full.append(queue_is_full)


class Broker:
    """Answers how many packages wait in a queue."""

    def __init__(self, message_count: int | None) -> None:
        self.message_count = message_count
        self.asked = 0

    async def state(self, _queue: str) -> QueueState | None:
        self.asked += 1
        await asyncio.sleep(0)
        return None if self.message_count is None else QueueState(self.message_count, 0)


@asynccontextmanager
async def running(nacks: Nacks) -> AsyncIterator[None]:
    task = asyncio.create_task(nacks.run())
    yield
    task.cancel()


def told_full(
    ask: Callable[[str], Coroutine[None, None, QueueState | None]], queue_max_bytes: int | None = MIB
) -> bool:
    async def run() -> bool:
        nacks, owner = Nacks(ask, queue_max_bytes), Told()
        async with running(nacks):
            nacks.note_published(PACKAGE)
            nacks.add(PACKAGE, owner)
            await until(lambda: bool(owner.full))
        (full,) = owner.full
        return full

    return asyncio.run(run())


@pytest.mark.parametrize(("message_count", "full"), [(105, True), (84, True), (20, False), (0, False), (None, False)])
def test_a_queue_is_full_where_what_waits_in_it_says_so(message_count: int | None, full: bool) -> None:
    assert told_full(Broker(message_count).state) is full


def test_a_queue_of_others_has_a_length_that_is_not_known() -> None:
    assert not told_full(Broker(10**6).state, None)


def test_no_cause_is_claimed_where_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(_queue: str) -> QueueState | None:
        raise ConnectionLostError("lost")

    async def silent(_queue: str) -> QueueState | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(module, "_ASK_TIMEOUT_S", 0.05)
    assert not told_full(lost)
    assert not told_full(silent)


def test_a_queue_is_asked_for_once_and_a_call_is_told_once_of_many_nacks() -> None:
    async def run() -> None:
        broker, first, second = Broker(1000), Told(), Told()
        nacks = Nacks(broker.state, MIB)
        nacks.note_published(PACKAGE)
        async with running(nacks):
            for _ in range(1000):
                nacks.add(PACKAGE, first)
                nacks.add(PACKAGE, second)
            await until(lambda: bool(first.full and second.full))
            assert (first.full, second.full, broker.asked) == ([True], [True], 1)

    asyncio.run(run())
