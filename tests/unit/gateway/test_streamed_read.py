"""A streamed read: its responses, its limits, and what it gives back however it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import cast

import pytest

from provgate.v1 import errors_pb2
from provgate.v1.provenance_storage_pb2 import LocationGetAllResponse
from provgate_gateway.errors import CallError
from provgate_gateway.read.streamed import RESPONSE_MAX_BYTES, StreamedReads
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_storage.database.local import RowStream
from provgate_storage.errors import StorageUnavailableError
from tests.support.async_tests import on_loop

IDLE_S = 0.2


class Stream:
    """A query with some chunks of rows, that waits before the first one if it is to."""

    is_over = False

    def __init__(self, chunks: Iterable[list[bytes] | Exception] = (), *, waits: bool = False) -> None:
        self._chunks = chunks
        self.may_go_on = threading.Event()
        self.running = threading.Event()
        self.closed = threading.Event()
        if not waits:
            self.may_go_on.set()

    def __iter__(self) -> Iterator[list[bytes]]:
        self.running.set()
        assert self.may_go_on.wait(60)
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def cancel(self) -> None:
        self.may_go_on.set()

    def close(self) -> None:
        self.closed.set()


class Reads:
    """Listings of one caller, one at a time."""

    def __init__(self, *, min_rate: int = 1, wait_s: float | None = None) -> None:
        self._limit = CallLimit("listings", 2, 1, wait_s)
        self._reads = StreamedReads(self._limit, IDLE_S, min_rate)

    def responses(self, stream: Stream, request_bytes: int = 0) -> AsyncIterator[LocationGetAllResponse]:
        rows = cast("RowStream[bytes]", stream)
        return self._reads.responses(
            "caller", request_bytes, lambda: (rows, lambda paths: LocationGetAllResponse(paths=paths))
        )

    async def rows(self, stream: Stream, pause_s: float = 0.0) -> list[bytes]:
        """Returns the rows that a client gets which pauses after each response."""
        found: list[bytes] = []
        async for response in self.responses(stream):
            assert response.ByteSize() <= RESPONSE_MAX_BYTES
            found += response.paths
            await asyncio.sleep(pause_s)
        return found

    def call(self, stream: Stream) -> asyncio.Task[list[bytes]]:
        return asyncio.create_task(self.rows(stream))

    async def check_holds_nothing(self) -> None:
        """Returns once another read has a turn, which needs the places and the turn of the others."""
        async with asyncio.timeout(10):
            await self.call(Stream())

    def close(self) -> None:
        self._reads.close()


@on_loop
async def test_rows_come_in_order_in_responses_that_a_client_can_receive() -> None:
    reads = Reads()
    rows = [b"%04d" % number + bytes(4092) for number in range(2000)]
    stream = Stream([rows[:1], rows[1:]])
    assert await reads.call(stream) == rows
    assert stream.closed.wait(10)
    await reads.check_holds_nothing()
    reads.close()


@on_loop
async def test_a_read_beyond_the_turns_waits_and_one_beyond_the_places_is_refused() -> None:
    reads, first = Reads(wait_s=0.05), Stream(waits=True)
    running = reads.call(first)
    await asyncio.to_thread(first.running.wait, 60)
    for match in ("no turn came in time", "no turn came in time"):
        with pytest.raises(CallError, match=match):
            await reads.call(Stream())
    ended = await asyncio.gather(reads.call(Stream()), reads.call(Stream()), return_exceptions=True)
    assert sorted("is reached" in str(each) for each in ended) == [False, True]
    first.may_go_on.set()
    assert await running == []
    await reads.check_holds_nothing()
    reads.close()


@on_loop
async def test_a_failure_of_the_storage_ends_the_read() -> None:
    reads, stream = Reads(), Stream([[b"row"], StorageUnavailableError("the database is away")])
    with pytest.raises(CallError) as raised:
        await reads.call(stream)
    assert raised.value.reason == errors_pb2.ERROR_REASON_STORAGE_UNAVAILABLE
    assert stream.closed.wait(10)
    await reads.check_holds_nothing()
    reads.close()


@on_loop
async def test_a_client_that_pauses_too_long_or_reads_too_slowly_loses_its_read() -> None:
    # It reads a response of some bytes in half of the time that it may pause; each earns it next to nothing.
    reads, stream = Reads(min_rate=10**9), Stream([[b"row"]] * 10)
    with pytest.raises(CallError) as raised:
        await asyncio.create_task(reads.rows(stream, IDLE_S / 2))
    assert raised.value.reason == errors_pb2.ERROR_REASON_READ_TIMEOUT
    assert stream.closed.wait(10)
    await reads.check_holds_nothing()
    reads.close()


@on_loop
async def test_a_read_whose_client_has_gone_cancels_its_query() -> None:
    reads, stream = Reads(), Stream(waits=True)
    running = reads.call(stream)
    await asyncio.to_thread(stream.running.wait, 60)
    running.cancel()
    await asyncio.wait([running])
    await reads.check_holds_nothing()
    assert stream.closed.is_set()
    reads.close()


@pytest.mark.parametrize("waits", [True, False])
def test_the_rows_of_a_read_whose_client_has_gone_are_freed_without_the_garbage_collector(waits: bool) -> None:
    @on_loop
    async def main() -> None:
        # It ends while its query runs, or while its client has a response.
        reads, stream = Reads(), Stream([[b"row"]] * 3, waits=waits)
        streams = _streams()
        running = asyncio.create_task(reads.rows(stream, 60.0))
        await asyncio.to_thread(stream.running.wait, 60)
        await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait([running])
        await reads.check_holds_nothing()
        del running, stream
        async with asyncio.timeout(10):
            while _streams() >= streams:  # noqa: ASYNC110 - the thread that closes it tells nobody
                await asyncio.sleep(0.01)
        reads.close()

    gc.collect()
    gc.disable()
    try:
        main()
    finally:
        gc.enable()


def _streams() -> int:
    return sum(type(found) is Stream for found in gc.get_objects())


@on_loop
async def test_a_read_may_end_after_the_threads_were_given_back() -> None:
    reads, stream = Reads(), Stream(waits=True)
    running = reads.call(stream)
    await asyncio.to_thread(stream.running.wait, 60)
    # The end of the server may come before gRPC's end of the RPC.
    reads.close()
    running.cancel()
    await asyncio.wait([running])
    stream.may_go_on.set()
    assert running.cancelled()
