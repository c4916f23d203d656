"""A TCP link that a test can break: a small proxy between a program and its broker or database."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from enum import Enum
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

_PIECE_BYTES: Final = 64 * 1024
_BLACK_HOLE_POLL_S: Final = 0.02

# A socket that lingers for no time is closed with RST.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the link does with the bytes that it receives.

    Attributes:
        PASS: passes them on.
        BLACK_HOLE: holds them, in both directions, until the mode changes; connections stay up, new ones are accepted.
            To the programs that is a network that drops every packet.
        NO_ANSWER: passes on the bytes of the programs, and holds the answers.
        REFUSE: new connections are reset at once.
    """

    PASS = "pass"
    BLACK_HOLE = "black hole"
    NO_ANSWER = "no answer"
    REFUSE = "refuse"


class Link:
    """A proxy on a free port of 127.0.0.1, on a thread of its own. A context manager.

    Args:
        host, port: the target.
        source: the address of this machine from which it connects, for example 127.0.0.2, which looks like another host
            to the server. None for any.

    Attributes:
        port: the port on which it listens.
        mode: the mode; may be set at any time.
        only: the mode applies only to connections on which the program has sent these bytes; None for all.
        held_count: the number of pieces that the mode holds.
        made_count: the number of connections that were made through it.
        delay_s: how long each piece is delayed.
        cut_after_bytes: a connection is reset after this many bytes, in both directions together; None for never.
        cut_count: the number of connections that were reset for that reason.
    """

    def __init__(self, host: str, port: int, source: str | None = None) -> None:
        self.port = 0
        self.mode = Mode.PASS
        self.only: bytes | None = None
        self.held_count = 0
        self.made_count = 0
        self.delay_s = 0.0
        self.cut_after_bytes: int | None = None
        self.cut_count = 0
        self._target = (host, port)
        self._source = None if source is None else (source, 0)
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connection_count(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def reset(self) -> int:
        """Resets every connection: both ends get RST. Returns how many there were."""
        return self._run(self._for_each(_Connection.reset))

    def half_close(self) -> int:
        """Ends the direction towards the program of every connection (FIN); the other direction goes on.

        Returns how many connections there were.
        """
        return self._run(self._for_each(_Connection.half_close))

    async def _for_each(self, act: Callable[[_Connection], None]) -> int:
        connections = list(self._connections)
        for connection in connections:
            act(connection)
        return len(connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.REFUSE:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target, local_addr=self._source)
        except OSError:
            _reset(writer)
            return
        connection = _Connection(self, writer, far_writer)
        self._connections.add(connection)
        self.made_count += 1
        try:
            await asyncio.gather(connection.pump(reader, far_writer), connection.pump(far_reader, writer))
        finally:
            self._connections.discard(connection)
            connection.reset()

    async def _stop(self) -> None:
        self._server.close()
        await self._for_each(_Connection.reset)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return done.result(10)


class _Connection:
    def __init__(self, link: Link, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._link = link
        self._near = near
        self._far = far
        self._passed_bytes = 0
        self._said_it = False
        self._half_closed = False

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(_PIECE_BYTES):
                await self._hand_on(piece, writer)
            if self._link.mode is Mode.PASS and writer.can_write_eof():
                writer.write_eof()
        except OSError:
            self.reset()

    def reset(self) -> None:
        for writer in (self._near, self._far):
            _reset(writer)

    def half_close(self) -> None:
        if self._near.can_write_eof():
            self._half_closed = True
            self._near.write_eof()

    async def _hand_on(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        if self._link.only is not None and writer is self._far and self._link.only in piece:
            self._said_it = True
        self._link.held_count += 1
        while self._is_held(writer):  # noqa: ASYNC110 - a test sets the mode from another thread
            await asyncio.sleep(_BLACK_HOLE_POLL_S)
        self._link.held_count -= 1
        if self._link.delay_s:
            await asyncio.sleep(self._link.delay_s)
        self._passed_bytes += len(piece)
        if self._link.cut_after_bytes is not None and self._passed_bytes > self._link.cut_after_bytes:
            self._link.cut_count += 1
            self.reset()
            return
        if writer is self._near and self._half_closed:
            return
        writer.write(piece)
        await writer.drain()

    def _is_held(self, writer: asyncio.StreamWriter) -> bool:
        if writer.transport.is_closing() or (self._link.only is not None and not self._said_it):
            return False
        mode = self._link.mode
        return mode is Mode.BLACK_HOLE or (mode is Mode.NO_ANSWER and writer is self._near)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        writer.transport.abort()
