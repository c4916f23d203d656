"""Connections and channels to RabbitMQ as coroutines: the only file that drives pika's connections."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosed, ConnectionBlockedTimeout, ConnectionClosed
from pika.exchange_type import ExchangeType
from pika.spec import Basic, BasicProperties, Queue

from provgate_broker.amqp.pika_workarounds import cause_of, use_lenient_properties
from provgate_broker.amqp.tls import TlsFiles
from provgate_broker.errors import ConnectionLostError
from provgate_runtime import ConfigurationError

# AMQP reply codes that callers tell apart.
ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406

_CONNECT_TIMEOUT_S: Final = 10.0
_NO_FILES: Final = TlsFiles()

use_lenient_properties()


class AmqpParameters:
    """The address of the broker, and how to connect to it.

    Args:
        url: amqp:// or amqps://, in the form of RabbitMQ's URI specification.
        heartbeat_s: seconds between heartbeats; the connection ends when two are missed.
        tls: PEM files for an amqps:// URL. Each connection reads them again, so that renewed files take effect.

    Attributes:
        address: host, port and virtual host, for messages; holds no secret.
        virtual_host: the name of the virtual host.

    Raises:
        ValueError: the URL is invalid, or there are TLS files and the URL is not amqps://. The text does not quote the
            URL, which may hold a password.
    """

    def __init__(self, url: str, heartbeat_s: int, tls: TlsFiles = _NO_FILES) -> None:
        self._parameters = _pika_parameters(url)
        self._tls = tls
        if tls and self._parameters.ssl_options is None:
            raise ValueError("tls_ca_file, tls_cert_file and tls_key_file need an amqps:// URL")
        self._parameters.heartbeat = heartbeat_s
        self._parameters.socket_timeout = _CONNECT_TIMEOUT_S
        self._parameters.stack_timeout = _CONNECT_TIMEOUT_S
        # `AmqpLink` repeats attempts, with backoff.
        self._parameters.connection_attempts = 1
        self.virtual_host: str = self._parameters.virtual_host
        self.address = f"{self._parameters.host}:{self._parameters.port}/{quote(self.virtual_host, safe='')}"

    def pika(self, name: str) -> pika.URLParameters:
        """Returns pika's parameters for a connection that the broker lists as `name`.

        Raises:
            ConfigurationError: a TLS file cannot be used.
        """
        named = copy.copy(self._parameters)
        named.client_properties = {"connection_name": name}
        if self._tls:
            # pika compares the host name of the certificate with that of the URL.
            named.ssl_options = pika.SSLOptions(self._tls.context())
        return named


def _pika_parameters(url: str) -> pika.URLParameters:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0:
            return pika.URLParameters(url)
    except (ValueError, IndexError, TypeError):
        # pika's message may quote the URL.
        pass
    raise ValueError("not a broker's URL: amqp://user:password@host:port/virtual-host")


class AmqpChannel:
    """A channel, from its opening until it or its connection closes.

    Attributes:
        raw: pika's channel.
        lost: a future that holds the reason once the channel has closed.
    """

    def __init__(self, raw: Channel, connection_closed: asyncio.Future[ConnectionLostError]) -> None:
        self.raw = raw
        self.lost: asyncio.Future[ConnectionLostError] = connection_closed.get_loop().create_future()

        def on_connection_closed(_: object) -> None:
            self._lose(connection_closed.result())

        raw.add_on_close_callback(lambda _, reason: self._lose(lost_error(reason)))
        connection_closed.add_done_callback(on_connection_closed)
        # The connection keeps no reference to channels that have closed.
        self.lost.add_done_callback(lambda _: connection_closed.remove_done_callback(on_connection_closed))

    async def call(self, start: Callable[[Callable[..., None]], object]) -> Any:
        """Calls `start` with a callback for pika, and returns what pika passes to the callback.

        Raises:
            ConnectionLostError: the channel closed first.
        """
        return await _result(start, self.lost)

    async def declare_queue(
        self,
        name: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> Queue.DeclareOk:
        """Sends queue.declare, and returns the broker's answer.

        Raises:
            ConnectionLostError: the broker refused and closed the channel, or the connection broke.
        """
        frame = await self.call(
            lambda callback: self.raw.queue_declare(
                name, passive=passive, durable=durable, exclusive=exclusive, arguments=arguments, callback=callback
            )
        )
        answer: Queue.DeclareOk = frame.method
        return answer

    async def consume(
        self,
        queue: str,
        on_message: Callable[[Channel, Basic.Deliver, BasicProperties, bytes], object],
        *,
        exclusive: bool = False,
    ) -> None:
        """Sends basic.consume, without delivery acks. Raises as `declare_queue` does."""
        await self.call(
            lambda callback: self.raw.basic_consume(
                queue, on_message, auto_ack=True, exclusive=exclusive, callback=callback
            )
        )

    async def delete_queue(self, name: str) -> None:
        """Sends queue.delete, without conditions: a quorum queue refuses if-empty and if-unused."""
        await self.call(lambda callback: self.raw.queue_delete(name, callback=callback))

    async def declare_exchange(self, name: str, *, passive: bool = False) -> None:
        """Sends exchange.declare for a durable direct exchange. Raises as `declare_queue` does."""
        await self.call(
            lambda callback: self.raw.exchange_declare(
                name, ExchangeType.direct, passive=passive, durable=not passive, callback=callback
            )
        )

    async def bind_queue(self, queue: str, exchange: str, binding_key: str) -> None:
        """Sends queue.bind. Raises as `declare_queue` does."""
        await self.call(lambda callback: self.raw.queue_bind(queue, exchange, binding_key, callback=callback))

    async def close(self) -> None:
        """Closes the channel. Does nothing if it has closed."""
        if self.raw.is_open:
            self.raw.close()
            await asyncio.wait({self.lost}, timeout=_CONNECT_TIMEOUT_S)

    def _lose(self, error: ConnectionLostError) -> None:
        if not self.lost.done():
            self.lost.set_result(error)


class AmqpSession:
    """An open connection with one open channel, made by `open_session`.

    Belongs to the event loop that opened it. When the session's channel closes, the session closes the connection too.
    Every coroutine raises `ConnectionLostError` if the session is lost while it waits.

    Attributes:
        amqp_channel: the session's channel.
        peer: the address and port that were reached; the host of the URL may have several addresses.
        broker_version: the broker's version, for example (3, 10, 8); (0,) if it is unknown.
        blocked: whether the broker blocks publishes on this connection (a memory or disk alarm).
    """

    def __init__(
        self, connection: AsyncioConnection, closed: asyncio.Future[ConnectionLostError], amqp_channel: AmqpChannel
    ) -> None:
        self.amqp_channel = amqp_channel
        self.peer = _peer_of(connection)
        version = str((connection.server_properties or {}).get("version", "")).split(".")
        self.broker_version = tuple(int(part) for part in version[:3] if part.isdigit()) or (0,)
        self.blocked = False
        self._connection = connection
        self._closed = closed
        self._blocked_listener: Callable[[bool], None] | None = None
        self._question_lock = asyncio.Lock()
        self._question_channel: AmqpChannel | None = None
        connection.add_on_connection_blocked_callback(lambda *_: self._on_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._on_blocked(False))
        amqp_channel.lost.add_done_callback(lambda _: _start_closing(connection))

    @property
    def is_open(self) -> bool:
        """Whether the session can be used."""
        return not self.amqp_channel.lost.done()

    @property
    def unsent_bytes(self) -> int:
        """The bytes that were published and are still in the process. pika holds a copy of them."""
        transport = getattr(self._connection, "_transport", None)
        return 0 if transport is None else int(transport.get_write_buffer_size())

    def on_blocked(self, listener: Callable[[bool], None]) -> None:
        """Sets the listener for connection.blocked (called with True) and connection.unblocked (with False)."""
        self._blocked_listener = listener

    async def wait_lost(self) -> None:
        """Waits until the session is lost, and raises `ConnectionLostError`."""
        raise await asyncio.shield(self.amqp_channel.lost)

    async def open_channel(self) -> AmqpChannel:
        """Opens another channel. The caller closes it."""
        return await _open_channel(self._connection, self._closed)

    @asynccontextmanager
    async def question_channel(self) -> AsyncIterator[AmqpChannel]:
        """Gives a channel that the broker may close, for one caller at a time.

        The broker closes the channel of a passive declaration that fails, and of a declaration that it refuses. The
        next caller gets a new channel then; also after a caller that did not wait for the answer, for example because
        of a time limit: if that answer closes the channel, it must not look like the answer to the next question.
        """
        async with self._question_lock:
            amqp_channel, self._question_channel = self._question_channel, None
            if amqp_channel is None or amqp_channel.lost.done():
                amqp_channel = await self.open_channel()
            try:
                yield amqp_channel
            except asyncio.CancelledError:
                if amqp_channel.raw.is_open:
                    amqp_channel.raw.close()
                raise
            self._question_channel = amqp_channel

    async def close(self) -> None:
        """Closes the connection, and waits until it has closed."""
        if self.blocked and not self._closed.done():
            # The broker does not read from a connection that it blocks, so it would not see the close. pika ends the
            # connection in the same way when `blocked_connection_timeout` has passed.
            terminate: Callable[[Exception], None] = getattr(self._connection, "_terminate_stream")  # noqa: B009  # not in the type stubs
            terminate(ConnectionBlockedTimeout("closed while the broker blocks publishes"))
        else:
            _start_closing(self._connection)
        await asyncio.wait({self._closed}, timeout=_CONNECT_TIMEOUT_S)

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        if self._blocked_listener is not None:
            self._blocked_listener(blocked)


async def open_session(parameters: AmqpParameters, name: str) -> AmqpSession:
    """Connects to the broker.

    Args:
        parameters: the address, and how to connect.
        name: the name that the broker lists for the connection.

    Raises:
        ConnectionLostError: the broker cannot be reached or refuses the connection.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()
    closed: asyncio.Future[ConnectionLostError] = loop.create_future()

    def on_open(_connection: object) -> None:
        opened.set_result(None)

    def on_closed(_connection: object, reason: BaseException) -> None:
        if not closed.done():
            closed.set_result(lost_error(reason))

    try:
        connection = AsyncioConnection(parameters.pika(name), on_open, on_closed, on_closed, custom_ioloop=loop)
    except (AMQPError, OSError, ConfigurationError) as error:
        raise lost_error(error) from error
    ends: set[asyncio.Future[Any]] = {opened, closed}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if closed.done():
            raise closed.result()
        return AmqpSession(connection, closed, await _open_channel(connection, closed))
    except BaseException:
        # pika cannot close a connection that is still opening. Opening ends by its own time limit.
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        _start_closing(connection)
        await asyncio.wait({closed}, timeout=_CONNECT_TIMEOUT_S)
        raise


async def _open_channel(connection: AsyncioConnection, closed: asyncio.Future[ConnectionLostError]) -> AmqpChannel:
    raw: Channel = await _result(lambda callback: connection.channel(on_open_callback=callback), closed)
    return AmqpChannel(raw, closed)


def _start_closing(connection: AsyncioConnection) -> None:
    if connection.is_open:
        connection.close()


def lost_error(reason: BaseException) -> ConnectionLostError:
    """Returns the error for a connection or channel that closed, with the broker's reply code if there is one."""
    cause = cause_of(reason)
    if isinstance(cause, ChannelClosed | ConnectionClosed):
        return ConnectionLostError(cause.reply_text, cause.reply_code)
    return ConnectionLostError(str(cause) or type(cause).__name__)


def _peer_of(connection: AsyncioConnection) -> str:
    # pika has no public way to the socket's address.
    sock = getattr(getattr(connection, "_transport", None), "_sock", None)
    try:
        host, port, *_ = sock.getpeername()  # type: ignore[union-attr]
    except (AttributeError, OSError):
        # The connection has closed already.
        return "an unknown address"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _result(start: Callable[[Callable[..., None]], object], lost: asyncio.Future[ConnectionLostError]) -> Any:
    """Returns what `start`'s callback gets, or raises the error of `lost` if that comes first."""
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def answer(result: object) -> None:
        if not answered.done():
            answered.set_result(result)

    try:
        start(answer)
    except AMQPError as error:
        raise (lost.result() if lost.done() else lost_error(error)) from error
    waited: set[asyncio.Future[Any]] = {answered, lost}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not answered.done():
        raise lost.result()
    return answered.result()
