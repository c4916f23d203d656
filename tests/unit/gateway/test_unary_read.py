"""Unary reads: calls for the same key share a query, unless it has begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self

import pytest

from provgate_gateway.errors import CallError
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_storage.errors import StorageUnavailableError
from tests.support.async_tests import on_loop, settle


class Database:
    """Reads that end when a test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()

    def read(self, key: str) -> Callable[[], str]:
        def run() -> str:
            self.begun.append(key)
            assert self.may_end.wait(10)
            return f"{key}, read {self.begun.count(key)}"

        return run

    async def has_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:  # noqa: ASYNC110 - another thread brings it about
                await asyncio.sleep(0.001)


class Reads:
    """Unary reads over such a database."""

    def __init__(self, turns: int) -> None:
        self.database = Database()
        self._reads = UnaryReads[str](CallLimit("reads", 100, turns))

    def call(self, caller: str, key: str) -> asyncio.Task[str]:
        """A call that waits until the database may end its reads."""
        return self.call_of(caller, key, self.database.read(key))

    def call_of(self, caller: str, key: str, read: Callable[[], str]) -> asyncio.Task[str]:
        return asyncio.create_task(self._reads.run(caller, key, read))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.may_end.set()
        self._reads.close()


@on_loop
async def test_one_content_holds_one_thread_and_the_others_go_on() -> None:
    with Reads(turns=8) as reads:
        hot = [reads.call("a", "hot") for _ in range(16)]
        await reads.database.has_begun(1)
        late = reads.call("b", "hot")
        assert await reads.call_of("b", "cold", lambda: "cold") == "cold"
        assert reads.database.begun == ["hot"]
        reads.database.may_end.set()
        # The late one asked when the first query had begun, whose answer may miss what was acked since.
        assert await asyncio.gather(*hot, late) == ["hot, read 1"] * 16 + ["hot, read 2"]


@on_loop
async def test_nobody_waits_for_the_share_of_another_caller() -> None:
    with Reads(turns=4) as reads:
        greedy = [reads.call("a", key) for key in "xyz"]
        await reads.database.has_begun(3)
        waiting = reads.call_of("a", "same", lambda: "same")
        await asyncio.sleep(0)
        assert await reads.call_of("b", "same", lambda: "same") == "same"
        assert await waiting == "same"
        reads.database.may_end.set()
        await asyncio.gather(*greedy)


@on_loop
async def test_a_call_that_leaves_takes_nothing_from_the_others_and_a_query_of_nobody_does_not_run() -> None:
    with Reads(turns=1) as reads:
        first = reads.call("a", "first")
        shared = [reads.call("a", "shared") for _ in range(2)]
        lost = reads.call("a", "lost")
        await reads.database.has_begun(1)
        for left in (first, shared[0], lost):
            left.cancel()
        await asyncio.wait([first, shared[0], lost])
        reads.database.may_end.set()
        assert await shared[1] == "shared, read 1"
        assert await reads.call_of("a", "lost", lambda: "found") == "found"
        assert reads.database.begun == ["first", "shared"]


@on_loop
async def test_all_calls_get_a_failure_and_the_next_query_is_a_new_one() -> None:
    def fails() -> str:
        raise StorageUnavailableError("the database is away")

    with Reads(turns=2) as reads:
        answers = await asyncio.gather(*(reads.call_of("a", "x", fails) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [CallError] * 3
        assert await reads.call_of("a", "x", lambda: "back") == "back"
        with pytest.raises(ZeroDivisionError):
            await reads.call_of("a", "y", lambda: str(1 // 0))


@on_loop
async def test_what_nobody_waits_for_any_more_leaves_nothing_behind() -> None:
    with Reads(turns=1) as reads:
        running = reads.call("a", "running")
        await reads.database.has_begun(1)
        tasks_before = len(asyncio.all_tasks())
        # A client that resets its calls while the database is slow: their places are free at once.
        for number in range(1000):
            reset = [reads.call("b", str(number % 500)), reads.call("b", "running")]
            await asyncio.sleep(0)
            for each in reset:
                each.cancel()
            await asyncio.wait(reset)
        await settle()
        assert len(asyncio.all_tasks()) == tasks_before
        # One that comes next does not run beside the one that runs.
        late = reads.call("b", "running")
        await asyncio.sleep(0)
        reads.database.may_end.set()
        assert (await running, await late) == ("running, read 1", "running, read 2")
        assert len(asyncio.all_tasks()) == 1


@on_loop
async def test_callers_of_one_query_wait_no_longer_than_it() -> None:
    with Reads(turns=4) as reads:
        slow = [reads.call("b", key) for key in "xyz"]
        await reads.database.has_begun(3)
        tasks_before = len(asyncio.all_tasks())
        for _ in range(100):
            hot = [reads.call_of(caller, "hot", lambda: "hot") for caller in "ba"]
            assert await asyncio.gather(*hot) == ["hot", "hot"]
        await settle()
        # None of b's had a turn: the answers came by those of a.
        assert len(asyncio.all_tasks()) == tasks_before
        reads.database.may_end.set()
        await asyncio.gather(*slow)
