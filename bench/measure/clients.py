"""The clients: own processes, so that they share no interpreter with each other or the harness; and their writers."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias

from bench.limit.pipeline import Pipeline
from bench.limit.publisher import Publisher
from bench.writes.loads import Write, add
from provgate_storage import get_provenance_storage

Make: TypeAlias = Callable[[random.Random], list[Write]]

_READY_S: Final = 60.0
# Ten times the longest call.
_DONE_S: Final = 600.0
_GO: Final = "go"


class Writer(Protocol):
    """The destination of a client's writes. It can be sent to another process."""

    def opened(self) -> AbstractContextManager[Callable[[Write], None]]:
        """Gives a function that makes one call and returns when everything is committed."""


@dataclass(frozen=True, slots=True)
class StorageWriter:
    """A storage; `config` has the arguments of `get_provenance_storage`."""

    config: Mapping[str, Any]

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        with get_provenance_storage(**self.config) as storage:
            yield partial(add, storage)


@dataclass(frozen=True, slots=True)
class PipelineWriter:
    """A pipeline with running consumers."""

    pipeline: Pipeline

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        publisher = Publisher(self.pipeline)
        yield publisher.write
        publisher.close()


class Timing(NamedTuple):
    """Start and end of a client's calls on the system's monotonic clock, and its CPU seconds."""

    started: float
    ended: float
    cpu_s: float


class Clients:
    """Client processes, one for each writer. A context manager that ends them.

    Args:
        writers: the writer of each client.
        make: makes the calls of a client from its source of randomness.
    """

    def __init__(self, writers: Sequence[Writer], make: Make) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for writer in writers:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, writer, make), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._each(_READY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_READY_S)
            process.kill()

    @property
    def pids(self) -> list[int]:
        """The pids of the processes."""
        return [process.pid or 0 for process in self._processes]

    def make(self, seed: str) -> None:
        """Makes each client make its data, from its source of `sources`; returns at once."""
        for pipe, source in zip(self._pipes, sources(seed, len(self._pipes)), strict=True):
            pipe.send(source)

    def made(self) -> None:
        """Waits until all have made their data."""
        self._each(_DONE_S)

    def go(self) -> list[Timing]:
        """Starts the calls of all clients at once, and waits for their end."""
        for pipe in self._pipes:
            pipe.send(_GO)
        return self._each(_DONE_S)

    def _each(self, patience_s: float) -> list[Timing]:
        return [self._answer(pipe, patience_s) for pipe in self._pipes]

    def _answer(self, pipe: Connection, patience_s: float) -> Timing:
        if not pipe.poll(patience_s):
            raise TimeoutError(f"a client was not done in {patience_s:.0f} s")
        try:
            answer = pipe.recv()
        except EOFError as error:
            raise RuntimeError("a client ended before it was done") from error
        if isinstance(answer, BaseException):
            raise answer
        return Timing(*answer)


def sources(seed: str, count: int) -> list[random.Random]:
    """Returns the source of randomness of each client."""
    return [random.Random(f"{seed}-{number}") for number in range(count)]


def _serve(pipe: Connection, writer: Writer, make: Make) -> None:
    # The harness handles Ctrl-C and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with writer.opened() as write:
            pipe.send(Timing(0.0, 0.0, 0.0))
            _obey(pipe, write, make)
    except EOFError:
        return
    except Exception as error:
        pipe.send(RuntimeError(f"a client failed: {error!r}"))
        raise


def _obey(pipe: Connection, write: Callable[[Write], None], make: Make) -> None:
    writes: list[Write] = []
    while True:
        order = pipe.recv()
        if order == _GO:
            pipe.send(_timed(write, writes))
        else:
            # Frees the data of one round before the next round's is made.
            writes = []
            writes = make(order)
            pipe.send(Timing(0.0, 0.0, 0.0))


def _timed(write: Callable[[Write], None], writes: list[Write]) -> Timing:
    cpu_s, started = time.process_time(), time.monotonic()
    for each in writes:
        write(each)
    return Timing(started, time.monotonic(), time.process_time() - cpu_s)
