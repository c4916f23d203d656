"""The clients: processes of their own, so that they neither share an interpreter nor are charged for the harness."""

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
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias

from bench.limit.pipeline import Pipeline
from bench.limit.publisher import Publisher
from bench.writes.loads import Write, add
from provgate_storage import get_provenance_storage

Make: TypeAlias = Callable[[random.Random], list[Write]]

_READY_S: Final = 60.0
# The longest call there is, with ten times the patience.
_DONE_S: Final = 600.0
_GO: Final = "go"


class Writer(Protocol):
    """Something that is written to."""

    def opened(self) -> AbstractContextManager[Callable[[Write], None]]:
        """Returns a context manager of a function that makes one call and returns when all of it is committed."""


@dataclass(frozen=True, slots=True)
class StorageWriter:
    """A storage: `config` is what `get_provenance_storage` takes."""

    config: Mapping[str, Any]

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        with get_provenance_storage(**self.config) as storage:
            yield partial(add, storage)


@dataclass(frozen=True, slots=True)
class PipelineWriter:
    """A pipeline whose consumers run."""

    pipeline: Pipeline

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        publisher = Publisher(self.pipeline)
        yield publisher.write
        publisher.close()


class Timing(NamedTuple):
    """What a client saw of its calls: moments of the system's monotonic clock, and its own CPU seconds."""

    started: float
    ended: float
    cpu_s: float


class Clients:
    """So many processes that each make calls of data of their own. As a context manager it ends them.

    Args:
        writers: what each of them writes to.
        make: makes the calls of a client, from a source of its own.
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

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_READY_S)
            process.kill()

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid or 0 for process in self._processes]

    def make(self, seed: str) -> None:
        """Has each client make its data, from its source of `sources`; returns at once."""
        for pipe, source in zip(self._pipes, sources(seed, len(self._pipes)), strict=True):
            pipe.send(source)

    def made(self) -> None:
        """Returns when all have made their data."""
        self._each(_DONE_S)

    def go(self) -> list[Timing]:
        """Has all of them make the calls of their data at once; returns when all have ended."""
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
    # A Ctrl-C is the harness's business: it closes the pipe.
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
            # One round's data is gone before the next one's is made.
            writes = []
            writes = make(order)
            pipe.send(Timing(0.0, 0.0, 0.0))


def _timed(write: Callable[[Write], None], writes: list[Write]) -> Timing:
    cpu_s, started = time.process_time(), time.monotonic()
    for each in writes:
        write(each)
    return Timing(started, time.monotonic(), time.process_time() - cpu_s)
