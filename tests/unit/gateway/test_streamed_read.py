"""A streamed read that ends while the gateway stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import cast

from provgate.v1.provenance_storage_pb2 import LocationGetAllResponse
from provgate_gateway.read.streamed import StreamedReads
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_storage.database.local import RowStream


class Stream:
    """A query that runs until it is told to end."""

    is_over = False

    def __init__(self) -> None:
        self.running = threading.Event()
        self.end = threading.Event()

    def __iter__(self) -> Iterator[list[bytes]]:
        self.running.set()
        self.end.wait(60)
        yield [b"path"]

    def cancel(self) -> None:
        self.end.set()

    def close(self) -> None:
        pass


def test_one_may_end_after_the_threads_were_given_back() -> None:
    stream = Stream()

    async def run() -> None:
        reads = StreamedReads(CallLimit("listings", 4, 1), 1.0, 1)
        ends: list[Callable[[], None]] = []
        responses = reads.responses(
            "caller",
            lambda: (cast("RowStream[bytes]", stream), lambda rows: LocationGetAllResponse(paths=rows)),
            ends.append,
        )
        reading = asyncio.ensure_future(anext(responses))
        await asyncio.to_thread(stream.running.wait, 60)
        reads.close()
        # gRPC calls it when the RPC is over, which the end of the server may come before.
        (end,) = ends
        end()
        stream.end.set()
        await reading

    try:
        asyncio.run(run())
    finally:
        stream.end.set()
