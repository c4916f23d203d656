"""One open connection to the broker, as coroutines: the only file that drives pika's connections."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosed, ConnectionBlockedTimeout, ConnectionClosed

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
    """Where the broker is and how to speak to it.

    Args:
        url: amqp:// or amqps://, as RabbitMQ's URI specification has it.
        heartbeat_s: seconds between heartbeats; two that are missed end the connection.
        tls: files of an amqps:// connection, read again for each attempt: renewed ones are used from the next on.

    Raises:
        ValueError: the URL is not one, or there are files for one that does not encrypt; the text does not quote the
            URL, since it may hold a password.
    """

    def __init__(self, url: str, heartbeat_s: int, tls: TlsFiles = _NO_FILES) -> None:
        self._parameters = _pika_parameters(url)
        self._tls = tls
        if tls and self._parameters.ssl_options is None:
            raise ValueError("tls_ca_file, tls_cert_file and tls_key_file need an amqps:// URL")
        self._parameters.heartbeat = heartbeat_s
        self._parameters.socket_timeout = _CONNECT_TIMEOUT_S
        self._parameters.stack_timeout = _CONNECT_TIMEOUT_S
        # An attempt is one attempt: the link that owns the connection repeats it, with backoff.
        self._parameters.connection_attempts = 1

    @property
    def address(self) -> str:
        """Host, port and virtual host, for messages; no secret."""
        return f"{self._parameters.host}:{self._parameters.port}/{quote(self._parameters.virtual_host, safe='')}"

    @property
    def virtual_host(self) -> str:
        """The virtual host's name."""
        name: str = self._parameters.virtual_host
        return name

    def pika(self, name: str) -> pika.URLParameters:
        """Returns pika's parameters for a connection that the broker shows under `name`.

        Raises:
            ConfigurationError: a file cannot be used.
        """
        named = copy.copy(self._parameters)
        named.client_properties = {"connection_name": name}
        if self._tls:
            # pika checks the host name against that of the URL.
            named.ssl_options = pika.SSLOptions(self._tls.context())
        return named


def _pika_parameters(url: str) -> pika.URLParameters:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0:
            return pika.URLParameters(url)
    except (ValueError, IndexError, TypeError):
        # What pika says of a URL may quote it.
        pass
    raise ValueError("not a broker's URL: amqp://user:password@host:port/virtual-host")


class AmqpChannel:
    """An open channel of a session, until it or its connection is lost.

    Attributes:
        raw: pika's channel.
        lost: done, with the reason, once the channel cannot be used any more.
    """

    def __init__(self, raw: Channel, connection_closed: asyncio.Future[ConnectionLostError]) -> None:
        self.raw = raw
        self.lost: asyncio.Future[ConnectionLostError] = connection_closed.get_loop().create_future()
        raw.add_on_close_callback(lambda _, reason: self._lose(lost_error(reason)))

        def on_connection_closed(_: object) -> None:
            self._lose(connection_closed.result())

        connection_closed.add_done_callback(on_connection_closed)
        # A connection outlives many channels and keeps none of them alive.
        self.lost.add_done_callback(lambda _: connection_closed.remove_done_callback(on_connection_closed))

    async def call(self, start: Callable[[Callable[..., None]], object]) -> Any:
        """Starts a method of pika's that takes a callback, and waits for what the callback is given.

        Raises:
            ConnectionLostError: the channel was lost first.
        """
        return await _answer(start, self.lost)

    async def close(self) -> None:
        """Closes the channel. Does nothing where it is lost."""
        if self.raw.is_open:
            self.raw.close()
            await asyncio.wait({self.lost}, timeout=_CONNECT_TIMEOUT_S)

    def _lose(self, error: ConnectionLostError) -> None:
        if not self.lost.done():
            self.lost.set_result(error)


class AmqpSession:
    """An open connection with an open channel, from `open_session` until either is lost.

    Belongs to the event loop that opened it. A session whose channel is gone is gone as a whole: the connection is
    closed then. Every coroutine raises `ConnectionLostError` when the session is lost while it waits.

    Attributes:
        amqp_channel: the session's channel.
        peer: the address and port that were reached: one of those that the URL's host has.
        blocked: whether the broker holds this connection's publishes back (a memory or disk alarm).
    """

    def __init__(self, connection: AsyncioConnection, closed: asyncio.Future[ConnectionLostError]) -> None:
        self.amqp_channel: AmqpChannel
        self.peer: str
        self.blocked = False
        self._connection = connection
        self._closed = closed
        self._blocked_listener: Callable[[bool], None] = lambda _: None
        connection.add_on_connection_blocked_callback(lambda *_: self._on_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._on_blocked(False))

    @property
    def broker_version(self) -> tuple[int, ...]:
        """The broker's version, for example (3, 10, 8); (0,) where it does not tell."""
        text = str((self._connection.server_properties or {}).get("version", ""))
        numbers = [part for part in text.split(".")[:3] if part.isdigit()]
        return tuple(int(part) for part in numbers) or (0,)

    @property
    def is_open(self) -> bool:
        """Whether the session can still be used."""
        return not self.amqp_channel.lost.done()

    @property
    def unsent_bytes(self) -> int:
        """What was published and not handed to the system yet. pika copies each body for that."""
        transport = getattr(self._connection, "_transport", None)
        return 0 if transport is None else int(transport.get_write_buffer_size())

    def on_blocked(self, listener: Callable[[bool], None]) -> None:
        """Has `listener` called with True when the broker blocks publishes, with False when it unblocks them."""
        self._blocked_listener = listener

    async def wait_lost(self) -> None:
        """Waits until the session is lost, and raises `ConnectionLostError`."""
        raise await asyncio.shield(self.amqp_channel.lost)

    async def call(self, start: Callable[[Callable[..., None]], object]) -> Any:
        """`AmqpChannel.call` on the session's channel."""
        return await self.amqp_channel.call(start)

    async def open_channel(self) -> AmqpChannel:
        """Opens a further channel, for what may close it. The caller closes it."""
        raw: Channel = await _answer(lambda callback: self._connection.channel(on_open_callback=callback), self._closed)
        return AmqpChannel(raw, self._closed)

    async def close(self) -> None:
        """Closes the connection and waits until it is closed."""
        if self.blocked and not self._closed.done():
            # The broker reads nothing from a connection that it blocks, the request to close it included. This is what
            # pika does itself when `blocked_connection_timeout` has passed.
            terminate: Callable[[Exception], None] = getattr(self._connection, "_terminate_stream")  # noqa: B009  # not in the type stubs
            terminate(ConnectionBlockedTimeout("closed while the broker blocks publishes"))
        elif self._connection.is_open:
            self._connection.close()
        await asyncio.wait({self._closed}, timeout=_CONNECT_TIMEOUT_S)

    async def start(self) -> None:
        """Opens the session's channel. Called once, by `open_session`, when the connection is open."""
        self.peer = _peer_of(self._connection)
        self.amqp_channel = await self.open_channel()
        self.amqp_channel.lost.add_done_callback(lambda _: self._close_rest())

    def _close_rest(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        self._blocked_listener(blocked)


def _peer_of(connection: AsyncioConnection) -> str:
    # pika has nothing public that tells which of a host's addresses it reached.
    sock: Any = getattr(getattr(connection, "_transport", None), "_sock", None)
    try:
        host, port, *_ = sock.getpeername()
    except (AttributeError, OSError):
        # The connection is gone already.
        return "an unknown address"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _answer(start: Callable[[Callable[..., None]], object], lost: asyncio.Future[ConnectionLostError]) -> Any:
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(result: Any) -> None:
        if not answered.done():
            answered.set_result(result)

    try:
        start(answer)
    except AMQPError as error:
        raise (lost.result() if lost.done() else lost_error(error)) from error
    await _first_of(answered, lost)
    if not answered.done():
        raise lost.result()
    return answered.result()


def lost_error(reason: BaseException) -> ConnectionLostError:
    """Returns the error for why a connection or channel closed, with the broker's reply code where it has one."""
    cause = cause_of(reason)
    if isinstance(cause, ChannelClosed | ConnectionClosed):
        return ConnectionLostError(cause.reply_text, cause.reply_code)
    return ConnectionLostError(str(cause) or type(cause).__name__)


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def open_session(parameters: AmqpParameters, name: str) -> AmqpSession:
    """Connects to the broker.

    Args:
        parameters: where and how.
        name: what the broker shows for the connection.

    Raises:
        ConnectionLostError: it cannot be reached or refuses.
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
    session = AmqpSession(connection, closed)
    try:
        await _first_of(opened, closed)
        if closed.done():
            raise closed.result()
        await session.start()
    except BaseException:
        # pika cannot close a connection that is still opening; it gives up opening one by itself, in time.
        await _first_of(opened, closed)
        await session.close()
        raise
    return session


class QuestionChannel:
    """Asks one question after the other over one channel, and over another one once the broker has closed that.

    A passive declaration of what is not there, or one that is refused, ends its channel and nothing else.

    Args:
        session: on which the channels are opened.
    """

    def __init__(self, session: AmqpSession) -> None:
        self._session = session
        self._amqp_channel: AmqpChannel | None = None

    async def call(self, start: Callable[[Any, Callable[..., None]], object]) -> Any:
        """Starts a method of pika's channel that takes a callback, and waits for what the callback is given.

        Raises:
            ConnectionLostError: the broker closed the channel instead, with the reply code that says why; or the
                connection is lost.
        """
        if self._amqp_channel is None or self._amqp_channel.lost.done():
            self._amqp_channel = await self._session.open_channel()
        raw = self._amqp_channel.raw
        return await self._amqp_channel.call(lambda callback: start(raw, callback))

    async def close(self) -> None:
        """Closes the channel that is open."""
        if self._amqp_channel is not None:
            await self._amqp_channel.close()


@asynccontextmanager
async def questions(session: AmqpSession) -> AsyncIterator[QuestionChannel]:
    """Gives a channel for questions, and closes it at the end.

    Not where it is cancelled: whoever ends the session closes the channel with it, and waits once for a broker that
    does not answer.
    """
    asked = QuestionChannel(session)
    try:
        yield asked
    except Exception:
        await asked.close()
        raise
    else:
        await asked.close()
