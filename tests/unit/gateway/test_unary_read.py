"""Unary reads: who asks for the same shares a look-up, unless it has begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from provgate_gateway.errors import CallError
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_storage.errors import StorageUnavailableError


class _Database:
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


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 - another thread brings it about
            await asyncio.sleep(0.001)


def test_one_content_holds_one_thread_and_the_others_go_on() -> None:
    async def main() -> list[str]:
        database, reads = _Database(), UnaryReads[str](CallLimit("reads", 100, 8))
        hot = [asyncio.create_task(reads.run("a", "hot", database.read("hot"))) for _ in range(16)]
        await _until(lambda: database.begun == ["hot"])
        late = asyncio.create_task(reads.run("b", "hot", database.read("hot")))
        assert await reads.run("b", "cold", lambda: "cold") == "cold"
        assert database.begun == ["hot"]
        database.may_end.set()
        answers = await asyncio.gather(*hot, late)
        reads.close()
        return answers

    # The late one asked when the first look-up had begun, whose answer may miss what was acked since.
    assert asyncio.run(main()) == ["hot, read 1"] * 16 + ["hot, read 2"]


def test_nobody_waits_for_the_share_of_another_caller() -> None:
    async def main() -> None:
        database, reads = _Database(), UnaryReads[str](CallLimit("reads", 100, 4))
        greedy = [asyncio.create_task(reads.run("a", str(key), database.read(str(key)))) for key in range(3)]
        await _until(lambda: len(database.begun) == 3)
        waiting = asyncio.create_task(reads.run("a", "same", lambda: "same"))
        await asyncio.sleep(0)
        assert await reads.run("b", "same", lambda: "same") == "same"
        assert await waiting == "same"
        database.may_end.set()
        await asyncio.gather(*greedy)
        reads.close()

    asyncio.run(main())


def test_who_leaves_takes_nothing_from_the_others_and_a_look_up_of_nobody_is_left_out() -> None:
    async def main() -> list[str]:
        database, reads = _Database(), UnaryReads[str](CallLimit("reads", 100, 1))
        first = asyncio.create_task(reads.run("a", "first", database.read("first")))
        shared = [asyncio.create_task(reads.run("a", "shared", database.read("shared"))) for _ in range(2)]
        lost = asyncio.create_task(reads.run("a", "lost", database.read("lost")))
        await _until(lambda: database.begun == ["first"])
        for left in (first, shared[0], lost):
            left.cancel()
        await asyncio.wait([first, shared[0], lost])
        database.may_end.set()
        assert await shared[1] == "shared, read 1"
        assert await reads.run("a", "lost", lambda: "found") == "found"
        reads.close()
        return database.begun

    assert asyncio.run(main()) == ["first", "shared"]


def test_a_failure_is_told_to_all_and_the_next_look_up_is_a_new_one() -> None:
    def fails() -> str:
        raise StorageUnavailableError("the database is away")

    async def main() -> None:
        reads = UnaryReads[str](CallLimit("reads", 100, 2))
        answers = await asyncio.gather(*(reads.run("a", "x", fails) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [CallError] * 3
        assert await reads.run("a", "x", lambda: "back") == "back"
        with pytest.raises(ZeroDivisionError):
            await reads.run("a", "y", lambda: str(1 // 0))
        reads.close()

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_leaves_nothing_behind() -> None:
    async def main() -> None:
        database, reads = _Database(), UnaryReads[str](CallLimit("reads", 100, 1))
        running = asyncio.create_task(reads.run("a", "running", database.read("running")))
        await _until(lambda: database.begun == ["running"])
        tasks_before = len(asyncio.all_tasks())
        # A client that resets its calls while the database is slow: their places are free at once.
        for number in range(1000):
            call = asyncio.create_task(reads.run("b", number % 500, lambda: "of nobody"))
            again = asyncio.create_task(reads.run("b", "running", lambda: "of nobody"))
            await asyncio.sleep(0)
            for each in (call, again):
                each.cancel()
            await asyncio.wait([call, again])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) - tasks_before == 0
        # One that comes next does not run beside the one that runs.
        late = asyncio.create_task(reads.run("b", "running", database.read("running")))
        await asyncio.sleep(0)
        database.may_end.set()
        assert (await running, await late) == ("running, read 1", "running, read 2")
        assert len(asyncio.all_tasks()) == 1
        reads.close()

    asyncio.run(main())


def test_callers_of_one_look_up_wait_no_longer_than_it() -> None:
    async def main() -> None:
        database, reads = _Database(), UnaryReads[str](CallLimit("reads", 100, 4))
        slow = [asyncio.create_task(reads.run("b", key, database.read(key))) for key in "xyz"]
        await _until(lambda: len(database.begun) == 3)
        tasks_before = len(asyncio.all_tasks())
        for _ in range(100):
            hot = [asyncio.create_task(reads.run(caller, "hot", lambda: "hot")) for caller in "ba"]
            assert await asyncio.gather(*hot) == ["hot", "hot"]
        await asyncio.sleep(0)
        # None of them had a turn, the answers came by those of the other.
        assert len(asyncio.all_tasks()) - tasks_before == 0
        database.may_end.set()
        await asyncio.gather(*slow)
        reads.close()

    asyncio.run(main())
