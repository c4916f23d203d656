"""Limits of concurrent calls: bounds for each class of calls, and a share of each bound for each caller.

The classes are writes, unary reads, reads by id, and listings (reads of everything of a kind, and of all occurrences of
a content). Each has its own places, turns, threads and database connections, so that no class waits for another.
A call has a place while its RPC lasts; a read asks the storage only while it has a turn.

A caller is a principal if the gateway has access control, otherwise the address of the peer without its port. It may
take one more while it holds less than three times what is free (the dynamic threshold of Choudhury and Hahne, IEEE/ACM
Transactions on Networking 6(2), 1998). So the share follows the load, and nobody has to set it:

- A caller alone has three quarters of a bound, and one of two has three sevenths. The rest stays free, so that a caller
  that holds nothing gets something at once. Only many callers together can use a bound up.
- Clients on one host, or behind one proxy, share an address and thus a share. The defaults of the bounds let a single
  caller use a small machine fully.
- A turn that becomes free goes to the caller that holds the fewest, in any order of asking: a caller with a thousand
  calls that wait does not hold up a caller with one.

All of it belongs to the gateway's event loop.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Final

from provgate.v1 import errors_pb2
from provgate_gateway import errors
from provgate_gateway.access.principals import ANONYMOUS, current_principal

REQUESTS_MAX_BYTES: Final = 64 * 1024 * 1024
"""The most bytes of encoded requests of the calls of one class that have a place. A request is decoded, and then takes
more memory, when its call has its turn."""

_SHARE: Final = 3


def caller_of(peer: str) -> str:
    """Returns the caller of the current call, for its share. `peer` is as gRPC names it."""
    principal = current_principal()
    if principal is not ANONYMOUS:
        return principal.name
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


class CallLimit:
    """The bounds of one class of calls.

    Args:
        kind: the name of the class for messages; a plural.
        places: the most calls at once; one more is refused.
        turns: the most calls that ask the storage at once; others wait.
        wait_s: how long a call waits for its turn; None while its RPC lasts.

    Attributes:
        turns: as given.
    """

    def __init__(self, kind: str, places: int, turns: int = 0, wait_s: float | None = None) -> None:
        self.turns = turns
        self._kind = kind
        self._places = _Shares(places)
        self._request_bytes = _Shares(REQUESTS_MAX_BYTES)
        self._turns = _Shares(turns)
        self._wait_s = wait_s
        # The turns that each caller waits for, in order; of callers that hold equally many turns, the first is next.
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    def enter(self, caller: str, request_bytes: int = 0) -> ExitStack:
        """Takes a place for a call with a request of this size; closed, it gives the place back.

        Raises:
            CallError: there is no place.
        """
        if not (self._places.may_take(caller, 1) and self._request_bytes.may_take(caller, request_bytes)):
            raise self._exhausted("the limit of concurrent {} is reached, or this caller's share of it")
        self._places.take(caller, 1)
        self._request_bytes.take(caller, request_bytes)
        place = ExitStack()
        place.callback(self._places.give_back, caller, 1)
        place.callback(self._request_bytes.give_back, caller, request_bytes)
        return place

    async def turn(self, caller: str) -> ExitStack:
        """Waits for a turn; closed, it gives the turn back. Raises `CallError` if none comes in time."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, {})[turn] = None
        self._give_turns()
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.cancelled():
                self._stop_waiting(caller, turn)
            else:
                self._end_turn(caller)
            if isinstance(error, TimeoutError):
                raise self._exhausted("too many {} run, and no turn came in time") from None
            raise
        slot = ExitStack()
        slot.callback(self._end_turn, caller)
        return slot

    def _end_turn(self, caller: str) -> None:
        self._turns.give_back(caller, 1)
        self._give_turns()

    def _give_turns(self) -> None:
        while self._waiting:
            caller = min(self._waiting, key=self._turns.held)
            if not self._turns.may_take(caller, 1):
                # Nor may the others, which hold as much or more.
                return
            turn = next(iter(self._waiting[caller]))
            self._stop_waiting(caller, turn)
            if not turn.cancelled():
                self._turns.take(caller, 1)
                turn.set_result(None)

    def _stop_waiting(self, caller: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.pop(caller, {})
        turns.pop(turn, None)
        if turns:
            # At the end: callers that hold equally few come before it.
            self._waiting[caller] = turns

    def _exhausted(self, message: str) -> errors.CallError:
        return errors.exhausted(errors_pb2.ERROR_REASON_TOO_MANY_CALLS, message.format(self._kind))


class _Shares:
    """An amount that callers share."""

    def __init__(self, bound: int) -> None:
        self._free = bound
        self._held: dict[str, int] = {}

    def held(self, caller: str) -> int:
        return self._held.get(caller, 0)

    def may_take(self, caller: str, amount: int) -> bool:
        return amount <= self._free and self.held(caller) + amount <= _SHARE * self._free

    def take(self, caller: str, amount: int) -> None:
        self._free -= amount
        self._held[caller] = self.held(caller) + amount

    def give_back(self, caller: str, amount: int) -> None:
        self._free += amount
        left = self._held.pop(caller, 0) - amount
        if left:
            self._held[caller] = left
