"""One write: reads its messages, hands packages on, and tells how far it has come.

Data flow: a reader task waits until flow control has memory for a message, reads it, checks and cuts it, waits for its
admission and submits the packages. The dispatcher calls back for each package. `responses` wakes up on every change and
yields the counts, at most one response at a time and not faster than a client can use them. All of it runs on the
gateway's loop, so that there are no locks.

A response that the client does not take suspends `responses`, for ever if it must: gRPC tells nobody, and a status
would wait behind the response. A timer then gives back what the call holds; the client finds the status if it reads on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from provgate.v1 import errors_pb2
from provgate.v1.provenance_storage_pb2 import AddProgress
from provgate_broker.wire.package import Nack
from provgate_gateway import errors
from provgate_gateway.errors import CallError
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.dispatcher import Dispatcher
from provgate_gateway.rpc.call_limits import Slot
from provgate_gateway.rpc.handler_wrappers import within
from provgate_gateway.rpc.requests import MessageKind
from provgate_gateway.write.flow_control import CallShare, CrowdedError, Load, QuotaError
from provgate_gateway.write.intake import Intake
from provgate_gateway.write.splitting import Package

logger = logging.getLogger(__name__)

_RESPONSE_INTERVAL_S: Final = 0.02

# How long before its deadline a call is ended, so that its status still reaches the client.
_DEADLINE_MARGIN_S: Final = 0.25

_PRINCIPAL_LIMIT: Final = errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT


class ServerCall(Protocol):
    """What a write needs of the context of its RPC."""

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None where there is none."""

    async def read(self) -> object:
        """The next message, encoded; `grpc.aio.EOF` where none follows."""


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """What a write is bounded by.

    Attributes:
        wait_min_s: how long it may go without progress, whatever it waits for.
        wait_per_batch_s: the same for each package that is not acked, where that is more.
        first_message_s: how long it may send nothing at first.
        intake: makes packages of messages.
    """

    wait_min_s: float
    wait_per_batch_s: float
    first_message_s: float
    intake: Intake


class WriteCall:
    """A write in progress.

    Args:
        dispatcher: gets the packages to the workers.
        share: the call's share of what may be unacked.
        policy: the bounds.
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
        self._packages_in_hand = 0
        self._begun = False
        self._half_closed = False
        self._failure: CallError | None = None
        self._reader: asyncio.Task[None] | None = None
        self._slot: Slot | None = None
        self._untaken: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._decided = asyncio.Event()
        self._progressed_at = time.monotonic()

    @property
    def counts(self) -> Mapping[str, str]:
        """The counts, for the metadata of a status."""
        return {
            "received_count": str(self._received_count),
            "published_count": str(self._published_count),
            "acked_count": str(self._acked_count),
        }

    def hold(self, slot: Slot) -> None:
        """Takes the place of the call among those that run, to be given back when the call closes."""
        self._slot = slot

    async def responses(self, kind: MessageKind[Any], call: ServerCall) -> AsyncIterator[AddProgress]:
        """Yields the progress of the call until everything it received is acked.

        Args:
            kind: tells what is in the messages.
            call: has the messages, and tells the deadline.

        Raises:
            CallError: the call fails.
        """
        deadline = _deadline_of(call)
        self._reader = asyncio.create_task(self._read(call, kind))
        try:
            sent: AddProgress | None = None
            while True:
                await self._wait_for_change(deadline)
                done = self._complete
                progress = self._progress()
                if done or progress != sent:
                    self._expect_taken()
                    yield progress
                    self._taken()
                    sent = progress
                if done:
                    return
                await within(self._decided.wait(), _RESPONSE_INTERVAL_S)
        finally:
            self.close()

    def close(self) -> None:
        """Gives back what the call holds. What is published is stored all the same. May be called again."""
        self._taken()
        if self._reader is not None:
            self._reader.cancel()
            # A cancelled task holds the frames that it was in, and with them a message: not in a cycle, until the
            # garbage collector comes.
            self._reader = None
        self._dispatcher.drop(self)
        self._share.close()
        if self._slot is not None:
            self._slot.release()

    def published(self, package: Package) -> None:
        """Counts a package that is safe in the broker."""
        self._published_count += package.entry_count
        self._progress_made()

    def acked(self, package: Package) -> None:
        """Counts a package that is committed."""
        self._acked_count += package.entry_count
        self._packages_in_hand -= 1
        self._share.release(package.load)
        self._progress_made()

    def refused(self, nack: Nack) -> None:
        """Fails: a worker refused a package."""
        self._fail(errors.refused(nack))

    def returned(self, package: Package) -> None:
        """Fails: the broker has no queue for a package."""
        self._fail(errors.unroutable(package.exchange, package.routing_key))

    def nacked(self, package: Package, *, queue_is_full: bool) -> None:
        """Fails: the broker refused a package."""
        self._fail(errors.nacked(package.exchange, package.routing_key, queue_is_full=queue_is_full))

    def shut_down(self) -> None:
        """Fails: the gateway ends."""
        self._fail(errors.unavailable(errors_pb2.ERROR_REASON_SHUTTING_DOWN, "the gateway is shutting down"))

    @property
    def _complete(self) -> bool:
        return self._half_closed and self._acked_count == self._received_count

    def _progress(self) -> AddProgress:
        return AddProgress(
            received_count=self._received_count,
            published_count=self._published_count,
            acked_count=self._acked_count,
        )

    def _progress_made(self) -> None:
        self._progressed_at = time.monotonic()
        self._changed.set()
        if self._complete:
            self._decided.set()

    def _fail(self, error: CallError) -> None:
        if self._failure is None:
            self._failure = error
            self._changed.set()
            self._decided.set()
            if self._reader is not None:
                # What it would take in now could not be told any more.
                self._reader.cancel()

    async def _read(self, call: ServerCall, kind: MessageKind[Any]) -> None:
        # Not by gRPC's iterator of requests, which keeps each message until the next has come.
        try:
            while (body := await self._share.next_message(partial(self._next, call), kind.growth)) is not None:
                self._begun = True
                packages = await self._policy.intake.packages(body, kind)
                del body
                await self._take(packages)
                del packages
        except CallError as error:
            self._fail(error)
        except CrowdedError:
            self._fail(errors.exhausted(errors_pb2.ERROR_REASON_FLOW_CONTROL, "too many writes wait"))
        except QuotaError as error:
            self._fail(errors.exhausted(_PRINCIPAL_LIMIT, str(error), error.retry_delay_s))
        except Exception:
            logger.exception("a write fails", extra={"action": "call.fail"})
            self._fail(errors.internal())
        else:
            self._half_closed = True
            self._progress_made()

    async def _next(self, call: ServerCall) -> object:
        # The client's time to send begins now, not while the call waited for memory.
        self._progressed_at = time.monotonic()
        return await call.read()

    async def _take(self, packages: list[Package]) -> None:
        load = Load()
        for package in packages:
            load.add(package.load)
        self._received_count += load.entry_count
        if packages:
            self._metrics.received(packages[0], load.entry_count)
        self._progress_made()
        await self._share.admit(load)
        self._packages_in_hand += len(packages)
        self._dispatcher.submit(packages, self)

    async def _wait_for_change(self, deadline: float | None) -> None:
        """Waits until there is something to tell, and raises the failure of the call if that is it."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return
            limit = self._patience_ends_at()
            ends_at = limit if deadline is None else min(limit, deadline)
            # Looked at on every turn: under steady acks there is always something to tell.
            if time.monotonic() >= ends_at:
                raise self._stall()
            if self._changed.is_set():
                self._changed.clear()
                return
            await within(self._changed.wait(), ends_at - time.monotonic())

    def _patience_ends_at(self) -> float:
        if not self._begun and not self._share.waiting:
            return self._progressed_at + self._policy.first_message_s
        patience_s = max(self._policy.wait_min_s, self._packages_in_hand * self._policy.wait_per_batch_s)
        # To wait for a turn, which the gateway itself gives by the caller's rate, is no standstill.
        return max(self._progressed_at, self._share.turn_at) + patience_s

    def _expect_taken(self) -> None:
        """Has the call end if its client does not take the response that comes next, and nothing else goes on."""
        remaining_s = self._patience_ends_at() - time.monotonic()
        if remaining_s > 0:
            self._untaken = asyncio.get_running_loop().call_later(remaining_s, self._expect_taken)
        else:
            if not self._complete:
                self._fail(self._stall())
            self.close()

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()

    def _stall(self) -> CallError:
        """Returns why the call could not go on."""
        if not self._begun and not self._share.waiting:
            return errors.timed_out(errors_pb2.ERROR_REASON_NO_PROGRESS, "the write sent no message in time")
        if not self._dispatcher.connected:
            return errors.unavailable(errors_pb2.ERROR_REASON_BROKER_UNAVAILABLE, "the broker cannot be reached")
        if self._dispatcher.blocked:
            return errors.exhausted(errors_pb2.ERROR_REASON_BROKER_BLOCKED, "the broker blocks publishers")
        turn_in_s = self._share.turn_at - time.monotonic()
        if turn_in_s > 0:
            return errors.exhausted(_PRINCIPAL_LIMIT, "this caller sends more entries a second than it may", turn_in_s)
        if self._share.waiting and not self._packages_in_hand:
            return errors.exhausted(errors_pb2.ERROR_REASON_FLOW_CONTROL, "too many writes wait")
        return errors.timed_out(
            errors_pb2.ERROR_REASON_NO_PROGRESS, "the write waited for as long as it may, and no more of it was acked"
        )


def _deadline_of(call: ServerCall) -> float | None:
    """Returns when the call has to end, on the monotonic clock."""
    remaining_s = call.time_remaining()
    if remaining_s is None:
        return None
    return time.monotonic() + max(remaining_s - _DEADLINE_MARGIN_S, remaining_s / 2)
