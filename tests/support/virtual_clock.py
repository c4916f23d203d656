"""An event loop with a virtual clock: a test can wait for minutes of its time in no real time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Moves the clock to the next timer instead of waiting for it."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing can happen any more: no timer is set, and nothing else is waited for"
        self.now_s += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def run_virtually(test: Coroutine[Any, Any, T]) -> T:
    """Runs a test on a loop with a virtual clock.

    Timers fire in their order, and everything that is ready happens before time passes. So if something has not
    happened after `await asyncio.sleep(n)`, it does not happen in n seconds, however busy the machine is. Not for tests
    with threads, processes or sockets: the clock does not wait for them. `InlineThreads` replaces a pool of threads.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(test)


class InlineThreads:
    """Replaces a `ThreadPoolExecutor`: runs each job at once, on the thread that submits it."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        pass

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future
