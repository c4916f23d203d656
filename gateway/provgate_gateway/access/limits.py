"""The limits of each principal: concurrent calls, unacked entries, entries per second. Admins have none.

How a limit is applied depends on what a refusal would cost:

- A new call, or a write at its first message, is refused with RESOURCE_EXHAUSTED and RetryInfo. Nothing of it was
  accepted, so a repeat costs nothing.
- A write that has begun is not refused. The gateway reads it more slowly, and stops reading while a quarter of all that
  may wait in the gateway belongs to its principal. Its client repeats a failed write from the last checkpoint, so two
  large writes that refuse each other could send the same entries for ever.

The limits are:

- Concurrent calls: one more is refused. A place is free when the RPC has ended, in whatever way.
- Unacked entries: the first message of a call is refused if it does not fit beside the unacked entries of the
  principal's other calls. Later messages wait, as at the call's own bound (`write/flow_control`), until enough is
  acked or dropped, which does not depend on them. A message larger than the bound is accepted when nothing else is
  unacked.
- Entries per second (`EntryRate`): the first message of a call is refused if it would wait longer than `TURN_MAX_S`,
  with the time to wait. Later messages wait for their turn. A waiting call counts as making progress.

Waiting messages count in the gateway's `max_unacked_bytes`. A restart of the gateway resets all counts. There is one
entry of state for each name that has called; the token file and the configuration bound the number of names.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

from provgate.v1 import errors_pb2
from provgate_gateway import errors
from provgate_gateway.access.principals import Principal
from provgate_gateway.access.roles import Role
from provgate_gateway.settings import LimitSettings
from provgate_gateway.write.flow_control import EntryRate, Load, Quota

TURN_MAX_S: Final = 5.0


class PrincipalLimits:
    """The use of each principal. Belongs to one event loop.

    Args:
        settings: the limits, the same for each principal.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._running: Counter[str] = Counter()
        self._quotas: dict[str, Quota] = {}

    def begin_call(self, principal: Principal) -> None:
        """Counts a call. `end_call` must follow once, when its RPC has ended.

        Raises:
            CallError: the principal's limit of concurrent calls is reached; the call is not counted.
        """
        maximum = self._settings.max_calls
        if principal.role is not Role.ADMIN and maximum is not None and self._running[principal.name] >= maximum:
            raise errors.exhausted(
                errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT, "this caller's limit of concurrent calls is reached"
            )
        self._running[principal.name] += 1

    def end_call(self, principal: Principal) -> None:
        """Removes a call from the count."""
        self._running[principal.name] -= 1

    def quota(self, principal: Principal) -> Quota | None:
        """Returns the quota that the writes of a principal share; None if they are not limited."""
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
