"""Threads that take turns: one runs at a time, and chance decides at every step which one goes on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

_PATIENCE_S = 60.0


def _always() -> bool:
    return True


class Promise:
    """A future for tasks that take turns."""

    def __init__(self, turns: Turns) -> None:
        self.has_ended = self.is_cancelled = False
        self.error: BaseException | None = None
        self._turns = turns
        self._value: Any = None

    def result(self) -> Any:
        self._turns.pause(lambda: self.has_ended or self.is_cancelled)
        if self.is_cancelled:
            raise CancelledError
        if self.error is not None:
            raise self.error
        return self._value

    def set_result(self, value: Any) -> None:
        self.has_ended, self._value = True, value

    def set_exception(self, error: BaseException) -> None:
        self.has_ended, self.error = True, error

    def done(self) -> bool:
        return self.has_ended


class Task(Promise):
    """A function that runs step by step, and the future of what it returns.

    Attributes:
        owner: the number of the function of `Turns.run` that it works for.
        can_go_on: whether its next step may begin.
    """

    def __init__(self, turns: Turns, owner: int, function: Callable[[], Any], can_go_on: Callable[[], bool]) -> None:
        super().__init__(turns)
        self.owner = owner
        self.can_go_on = can_go_on
        self.has_begun = False
        self.turn = threading.Semaphore(0)
        self._function = function

    def run(self) -> None:
        try:
            self.set_result(self._function())
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            self.set_exception(error)


class Turns:
    """Runs functions, and what they hand to executors, one step at a time.

    A step ends where a task pauses, waits for another one, or ends. What a run does follows from the seed alone: with
    half of all seeds any function makes the next step; with the others one goes far while the others rest, and another
    takes over at chosen steps.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._is_steady = self._chance.random() < 0.5
        self._change_chance = self._chance.choice([0.05, 0.2, 0.5])
        self._owner = 0
        self._tasks: list[Task] = []
        self._current: Task | None = None
        self._back = threading.Semaphore(0)

    def run(self, functions: Sequence[Callable[[], Any]]) -> None:
        """Runs functions until everything that they started has ended. Raises what one of them has raised."""
        started = [Task(self, owner, function, _always) for owner, function in enumerate(functions)]
        self._tasks, self._owners = [*started], len(started)
        while self._tasks:
            self._current = self._next()
            if self._current.has_begun:
                self._current.turn.release()
            else:
                self._current.has_begun = True
                threading.Thread(target=self._run_task, args=(self._current,), daemon=True).start()
            assert self._back.acquire(timeout=_PATIENCE_S), "a step does not end"
            self._tasks = [task for task in self._tasks if not task.has_ended and not task.is_cancelled]
        for task in started:
            if task.error is not None:
                raise task.error

    def start(self, function: Callable[[], Any], can_go_on: Callable[[], bool]) -> Task:
        """Starts a task for the owner of the one that calls this."""
        assert self._current is not None
        task = Task(self, self._current.owner, function, can_go_on)
        self._tasks.append(task)
        return task

    def pause(self, can_go_on: Callable[[], bool] = _always, may_change: bool = False) -> None:
        """Ends the step of the task that calls this; the next one begins once it can.

        Args:
            can_go_on: whether it can.
            may_change: whether another function may take over here, if this one goes far.
        """
        task = self._current
        assert task is not None
        task.can_go_on = can_go_on
        if may_change and self._chance.random() < self._change_chance:
            self._owner = self._chance.randrange(self._owners)
        self._back.release()
        task.turn.acquire()

    @contextmanager
    def instead_of_threads(self) -> Iterator[None]:
        """Makes the executors of the indexer start their work here."""
        with pytest.MonkeyPatch.context() as patch:
            for module in ("pipeline",):
                patch.setattr(f"provgate_client.git.{module}.ThreadPoolExecutor", partial(_Executor, self))
            patch.setattr("provgate_client.git.pipeline.Future", partial(Promise, self))
            patch.setattr("provgate_client.git.pipeline.wait", self._wait)
            yield

    def _next(self) -> Task:
        ready = [task for task in self._tasks if task.can_go_on()]
        assert ready, "every task waits for another"
        if self._is_steady:
            ready = [task for task in ready if task.owner == self._owner] or ready
        task = self._chance.choice(ready)
        self._owner = task.owner
        return task

    def _run_task(self, task: Task) -> None:
        task.run()
        self._back.release()

    def _wait(self, tasks: Sequence[Task], return_when: str) -> tuple[set[Task], set[Task]]:
        assert return_when == FIRST_EXCEPTION
        self.pause(lambda: all(task.has_ended for task in tasks) or any(task.error for task in tasks))
        ended = {task for task in tasks if task.has_ended}
        return ended, set(tasks) - ended


class _Executor:
    def __init__(self, turns: Turns, workers: int, thread_name_prefix: str) -> None:
        self._turns = turns
        self._workers = workers
        self._tasks: list[Task] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Task:
        task = self._turns.start(lambda: function(*arguments), lambda: self._is_next(task))
        self._tasks.append(task)
        return task

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False) -> None:
        for task in self._tasks:
            task.is_cancelled = task.is_cancelled or (cancel_futures and not task.has_begun)
        if wait:
            self._turns.pause(lambda: all(task.has_ended or task.is_cancelled for task in self._tasks))

    def _is_next(self, task: Task) -> bool:
        waiting = [each for each in self._tasks if not each.has_begun and not each.is_cancelled]
        running = [each for each in self._tasks if each.has_begun and not each.has_ended]
        return task.has_begun or (waiting[0] is task and len(running) < self._workers)
