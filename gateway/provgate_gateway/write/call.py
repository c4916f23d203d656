"""One write call: reads its messages, hands packages to the dispatcher, and responds with its progress.

A reader task reserves memory for a message, reads it, splits it into packages, waits until flow control admits them and
submits them. The dispatcher reports what becomes of each package to `handle`. `responses` wakes up on every change and
yields the counts, one response at a time and no faster than the client reads. All of it runs on the gateway's loop, so
that there are no locks.

gRPC suspends `responses` while the client does not read a response, and a status would wait behind that response. So a
timer gives back what the call holds if there is no progress meanwhile; the client gets the status if it reads on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import Message

from provgate.v1 import errors_pb2
from provgate.v1.provenance_storage_pb2 import AddProgress
from provgate_gateway import errors
from provgate_gateway.errors import CallError
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.dispatcher import Dispatcher
from provgate_gateway.publish.ledger import Acked, BrokerRefused, PackageEvent, Published, Refused, Returned
from provgate_gateway.rpc.handler_wrappers import CallContext, within
from provgate_gateway.rpc.requests import MessageKind
from provgate_gateway.write.flow_control import CallShare, Load, QuotaError
from provgate_gateway.write.memory_budget import MemoryBudgetError
from provgate_gateway.write.splitting import Package, Splitter

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

_RESPONSE_INTERVAL_S: Final = 0.02

# How long before its deadline a call ends, so that its status still reaches the client.
_DEADLINE_MARGIN_S: Final = 0.25

_NO_PROGRESS: Final = errors_pb2.ERROR_REASON_NO_PROGRESS
_PRINCIPAL_LIMIT: Final = errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """The time limits of a write.

    Attributes:
        no_progress_min_s: how long it may go without progress, whatever it waits for.
        no_progress_per_package_s: the same for each unacked package, if that is more.
        first_message_s: how long it may take to send its first message.
        splitter: splits messages into packages.
    """

    no_progress_min_s: float
    no_progress_per_package_s: float
    first_message_s: float
    splitter: Splitter


class WriteCall:
    """A write in progress. Belongs to one event loop.

    Args:
        dispatcher: publishes the packages.
        share: the call's share of what may be unacked.
        policy: the time limits.
        metrics: counts what is received.
    """

    def __init__(self, dispatcher: Dispatcher, share: CallShare, policy: WritePolicy, metrics: GatewayMetrics) -> None:
        self._dispatcher = dispatcher
        self._share = share
        self._policy = policy
        self._metrics = metrics
        self._received_count = 0
        self._published_count = 0
        self._acked_count = 0
        self._unacked_package_count = 0
        self._has_begun = False
        self._is_half_closed = False
        self._failure: CallError | None = None
        self._reader: asyncio.Task[None] | None = None
        self._place = ExitStack()
        self._response_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        # Set when the call fails or is complete: then the next response does not wait for its interval.
        self._decided = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._progress_at = self._loop.time()

    @property
    def counts(self) -> Mapping[str, str]:
        """The counts, for the metadata of a status."""
        return {
            "received_count": str(self._received_count),
            "published_count": str(self._published_count),
            "acked_count": str(self._acked_count),
        }

    def hold(self, place: ExitStack) -> None:
        """Keeps the call's place among the concurrent calls, and gives it back when the call closes."""
        self._place = place

    async def responses(self, kind: MessageKind[M], context: CallContext) -> AsyncIterator[AddProgress]:
        """Yields the progress of the call until everything it received is acked.

        Args:
            kind: of the messages.
            context: of the RPC.

        Raises:
            CallError: the call fails.
        """
        # gRPC returns None if the client sets no deadline.
        remaining_s: float | None = context.time_remaining()
        deadline = None
        if remaining_s is not None:
            deadline = self._loop.time() + max(remaining_s - _DEADLINE_MARGIN_S, remaining_s / 2)
        self._reader = asyncio.create_task(self._read(kind, context))
        try:
            sent: AddProgress | None = None
            while True:
                await self._wait_for_change(deadline)
                is_complete = self._is_complete
                progress = AddProgress(
                    received_count=self._received_count,
                    published_count=self._published_count,
                    acked_count=self._acked_count,
                )
                if is_complete or progress != sent:
                    self._check_response_is_read()
                    yield progress
                    self._cancel_response_timer()
                    sent = progress
                if is_complete:
                    return
                await within(self._decided.wait(), _RESPONSE_INTERVAL_S)
        finally:
            self.close()

    def handle(self, event: PackageEvent) -> None:
        """Acts on what happened to one of the call's packages."""
        match event:
            case Published(package=package):
                self._published_count += package.entry_count
                self._note_progress()
            case Acked(package=package):
                self._acked_count += package.entry_count
                self._unacked_package_count -= 1
                self._share.release(package.load)
                self._note_progress()
            case Refused(nack=nack):
                self._fail(errors.refused(nack))
            case Returned(package=package):
                self._fail(errors.unroutable(package.exchange, package.routing_key))
            case BrokerRefused(package=package, queue_is_full=queue_is_full):
                self._fail(errors.nacked(package.exchange, package.routing_key, queue_is_full=queue_is_full))

    def shut_down(self) -> None:
        """Fails the call: the gateway ends."""
        self._fail(errors.unavailable(errors_pb2.ERROR_REASON_SHUTTING_DOWN, "the gateway is shutting down"))

    def close(self) -> None:
        """Gives back what the call holds. Packages that are published are stored all the same. May be called again."""
        self._cancel_response_timer()
        if self._reader is not None:
            self._reader.cancel()
            # A cancelled task keeps its frames, and a message with them, until a garbage collection frees the cycle.
            self._reader = None
        self._dispatcher.drop(self)
        self._share.close()
        self._place.close()

    async def _read(self, kind: MessageKind[M], context: CallContext) -> None:
        memory = self._share.memory
        try:
            while True:
                await memory.reserve(kind.growth)
                # From here on the call waits for its client.
                self._progress_at = self._loop.time()
                # gRPC's iterator of requests would keep each message until the next one has come.
                body = await memory.receive(context.read(), kind.growth)
                if body is None:
                    break
                self._has_begun = True
                packages = await self._policy.splitter.packages(body, kind)
                del body
                await self._submit(packages)
                del packages
        except CallError as error:
            # The frames of its traceback would keep the message until a garbage collection.
            error.__cause__ = error.__context__ = None
            self._fail(error.with_traceback(None))
        except MemoryBudgetError:
            self._fail(errors.exhausted(errors_pb2.ERROR_REASON_FLOW_CONTROL, "too many writes wait"))
        except QuotaError as error:
            self._fail(errors.exhausted(_PRINCIPAL_LIMIT, str(error), error.retry_delay_s))
        except Exception:
            logger.exception("a write fails", extra={"action": "call.fail"})
            self._fail(errors.internal())
        else:
            self._is_half_closed = True
            self._note_progress()

    async def _submit(self, packages: list[Package]) -> None:
        load = Load()
        for package in packages:
            load.add(package.load)
        self._received_count += load.entry_count
        if packages:
            self._metrics.received(packages[0], load.entry_count)
        self._note_progress()
        await self._share.admit(load)
        self._unacked_package_count += len(packages)
        self._dispatcher.submit(packages, self)

    @property
    def _is_complete(self) -> bool:
        return self._is_half_closed and self._acked_count == self._received_count

    def _note_progress(self) -> None:
        self._progress_at = self._loop.time()
        self._changed.set()
        if self._is_complete:
            self._decided.set()

    def _fail(self, error: CallError) -> None:
        if self._failure is None:
            self._failure = error
            self._changed.set()
            self._decided.set()
            if self._reader is not None:
                # No response could report what it would still read.
                self._reader.cancel()

    async def _wait_for_change(self, deadline: float | None) -> None:
        """Waits until there is something to respond, and raises the failure of the call if that is it."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._is_complete:
                return
            ends_at = self._no_progress_ends_at()
            if deadline is not None:
                ends_at = min(ends_at, deadline)
            # Checked every time: under steady acks there is always a change.
            if self._loop.time() >= ends_at:
                raise self._stall()
            if self._changed.is_set():
                self._changed.clear()
                return
            await within(self._changed.wait(), ends_at - self._loop.time())

    def _no_progress_ends_at(self) -> float:
        if not self._has_begun and not self._share.waiting:
            return self._progress_at + self._policy.first_message_s
        limit_s = self._unacked_package_count * self._policy.no_progress_per_package_s
        # To wait for the caller's entry rate, which the gateway itself imposes, is progress.
        return max(self._progress_at, self._share.rate_passes_at) + max(self._policy.no_progress_min_s, limit_s)

    def _check_response_is_read(self) -> None:
        """Ends the call if there is no progress until its limit, unless the client reads the response before."""
        remaining_s = self._no_progress_ends_at() - self._loop.time()
        if remaining_s > 0:
            self._response_timer = self._loop.call_later(remaining_s, self._check_response_is_read)
        else:
            if not self._is_complete:
                self._fail(self._stall())
            self.close()

    def _cancel_response_timer(self) -> None:
        if self._response_timer is not None:
            self._response_timer.cancel()

    def _stall(self) -> CallError:
        """Returns why the call makes no progress."""
        if not self._has_begun and not self._share.waiting:
            return errors.timed_out(_NO_PROGRESS, "the write sent no message in time")
        if not self._dispatcher.connected:
            return errors.unavailable(errors_pb2.ERROR_REASON_BROKER_UNAVAILABLE, "the broker cannot be reached")
        if self._dispatcher.blocked:
            return errors.exhausted(errors_pb2.ERROR_REASON_BROKER_BLOCKED, "the broker blocks publishers")
        rate_wait_s = self._share.rate_passes_at - self._loop.time()
        if rate_wait_s > 0:
            return errors.exhausted(
                _PRINCIPAL_LIMIT, "this caller sends more entries a second than it may", rate_wait_s
            )
        if self._share.waiting and not self._unacked_package_count:
            return errors.exhausted(errors_pb2.ERROR_REASON_FLOW_CONTROL, "too many writes wait")
        return errors.timed_out(_NO_PROGRESS, "the write made no progress in time, or reached its deadline")
