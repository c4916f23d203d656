"""What each principal may use of the gateway: calls at once, unacked entries, entries a second.

State: an allowance for each name that ever called, made at its first call; there are no more names than the file of
tokens and the configuration had. All of it belongs to the gateway's event loop. Admins have none, and no limits.

How a limit is met depends on what would be lost. A call, or a write that begins, is refused with RESOURCE_EXHAUSTED
and RetryInfo: nothing of it was taken, and to repeat it costs nothing. A write that has begun is not refused but read
more slowly, and not at all while a quarter of all that may wait in the gateway is this principal's: its client repeats
a write from its last checkpoint, and two large writes of one principal that could refuse each other in the middle would
send the same entries again and again and never come to an end.

- Calls at once: one more is refused. The place is free when the RPC has ended, however it did.
- Unacked entries: the first message of a call that does not fit beside what the principal's other calls have in hand is
  refused; later ones wait for room, as they do at the call's own bound (`flow_control`). What is in hand is acked or
  dropped without the help of those that wait, so that there is room at last. A message larger than the bound is taken
  when nothing else is in hand.
- Entries a second (`entry_rate`): the first message of a call that would wait for more than `TURN_MAX_S` is refused,
  and told for how long; later ones wait for their turn. While one waits its call counts as going on.

What waits is part of the gateway's bytes (`max_unacked_bytes`). When the gateway is started again all counts start at
nothing, as do all calls.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Final

from provgate.v1 import errors_pb2
from provgate_gateway import errors
from provgate_gateway.access.principals import Principal
from provgate_gateway.access.roles import Role
from provgate_gateway.settings import LimitSettings
from provgate_gateway.write.flow_control import EntryRate, Load, Quota

TURN_MAX_S: Final = 5.0


class PrincipalLimits:
    """The allowances of all principals. Belongs to one event loop.

    Args:
        settings: the limits, the same for each.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._running: Counter[str] = Counter()
        self._quotas: dict[str, Quota] = {}

    def begin_call(self, principal: Principal) -> Callable[[], None]:
        """Counts a call of a principal. Returns what counts it out, to be called once, when its RPC has ended.

        Raises:
            CallError: the principal's limit of concurrent calls is reached.
        """
        if principal.role is Role.ADMIN or self._settings.max_calls is None:
            return lambda: None
        if self._running[principal.name] >= self._settings.max_calls:
            raise errors.exhausted(
                errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT, "this caller's limit of concurrent calls is reached"
            )
        self._running[principal.name] += 1
        return lambda: self._running.subtract([principal.name])

    def quota(self, principal: Principal) -> Quota | None:
        """Returns what the writes of a principal share; None where they are not limited."""
        settings = self._settings
        if principal.role is Role.ADMIN:
            return None
        if settings.max_unacked_entries is None and settings.entries_per_second is None:
            return None
        if principal.name not in self._quotas:
            bound = Load(settings.max_unacked_entries or sys.maxsize, sys.maxsize)
            rate = None if settings.entries_per_second is None else EntryRate(settings.entries_per_second)
            self._quotas[principal.name] = Quota(bound, rate, TURN_MAX_S)
        return self._quotas[principal.name]
