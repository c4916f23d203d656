"""A stream takes a connection once, ends its query when it is cancelled, and always gives the connection back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from provgate_storage.database.reads import RowStream
from provgate_storage.errors import StorageTimeoutError, StorageUnavailableError


def nothing() -> None:
    pass


class Recorded(RowStream[int]):
    """Three chunks; records what happens to its connection.

    Attributes:
        events: "acquired", "ended", "released" and "discarded", in their order.
        on_acquire, on_end: called where a database would wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.on_acquire: Callable[[], None] = nothing
        self.on_end: Callable[[], None] = nothing

    def _acquire(self) -> None:
        self.events.append("acquired")
        self.on_acquire()

    def _chunks(self) -> Iterator[list[int]]:
        for number in range(3):
            self._check_running()
            self.is_over = number == 2
            yield [number]

    def _end_query(self) -> None:
        self.events.append("ended")
        self.on_end()

    def _release(self, cancelled: bool) -> None:
        self.events.append("discarded" if cancelled else "released")


@pytest.fixture
def stream() -> Recorded:
    return Recorded()


def test_a_stream_that_is_read_gives_its_connection_back_once(stream: Recorded) -> None:
    with stream:
        assert [(chunk, stream.is_over) for chunk in stream] == [([0], False), ([1], False), ([2], True)]
    stream.cancel()
    assert stream.events == ["acquired", "released"]


def test_a_stream_that_is_left_gives_its_connection_back(stream: Recorded) -> None:
    with stream:
        chunks = iter(stream)
        next(chunks)
    assert stream.events == ["acquired", "released"]
    with pytest.raises(StorageUnavailableError, match="closed"):
        next(chunks)
    assert stream.events == ["acquired", "released"]


def test_a_stream_that_is_cancelled_early_takes_no_connection(stream: Recorded) -> None:
    stream.cancel()
    with pytest.raises(StorageUnavailableError, match="cancelled"):
        list(stream)
    assert stream.events == []


def test_a_stream_that_is_cancelled_while_it_waits_for_a_connection_runs_no_query(stream: Recorded) -> None:
    stream.on_acquire = stream.cancel
    with pytest.raises(StorageUnavailableError, match="cancelled"):
        list(stream)
    assert stream.events == ["acquired", "discarded"]


def test_a_stream_without_a_connection_gives_none_back(stream: Recorded) -> None:
    def fail() -> None:
        raise StorageUnavailableError("away")

    stream.on_acquire = fail
    with pytest.raises(StorageUnavailableError, match="away"):
        list(stream)
    assert stream.events == ["acquired"]


@pytest.mark.parametrize("reachable", [True, False])
def test_cancel_ends_the_query_if_the_server_can_be_reached(stream: Recorded, reachable: bool) -> None:
    def fail() -> None:
        raise StorageUnavailableError("away")

    stream.on_end = nothing if reachable else fail
    chunks = iter(stream)
    next(chunks)
    stream.cancel()
    with pytest.raises(StorageUnavailableError, match="cancelled"):
        next(chunks)
    assert stream.events == ["acquired", "ended", "discarded"]


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_time_limit_is_told_from_a_cancelled_query(stream: Recorded, cancelled: bool) -> None:
    chunks = iter(stream)
    next(chunks)
    if cancelled:
        stream.cancel()
    with pytest.raises(StorageUnavailableError if cancelled else StorageTimeoutError):
        chunks.throw(StorageTimeoutError("57014"))  # type: ignore[attr-defined]
    assert stream.events[-1] == ("discarded" if cancelled else "released")
