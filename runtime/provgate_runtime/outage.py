"""Logs of something that fails repeatedly: a record when an outage begins and one when it ends, not one an attempt."""

from __future__ import annotations

import logging
import time
from typing import Final

# Reasons of one outage that are logged at full level; some contain a number that differs with every failure.
_REASONS_MAX_COUNT: Final = 3


class Outage:
    """Logs the beginning and the end of each outage of one thing. Not thread-safe.

    The first failure of an outage is logged at `level`, and so are the first failures with another reason, three
    reasons at most; all others at debug. The end is logged at info, with the outage's duration. Records have the fields
    `state` (`failing` or `working`) and `reason`, and at the end `after_s`.

    Args:
        logger: the logger of the module that sees the failures.
        action: the action of all records.
        level: the level of the failures that are logged.
        calm_s: minimum time since the last failure before a success ends the outage. Without it, failures and successes
            that alternate would each be logged.
    """

    def __init__(
        self, logger: logging.Logger, *, action: str, level: int = logging.WARNING, calm_s: float = 0.0
    ) -> None:
        self._logger = logger
        self._action = action
        self._level = level
        self._calm_s = calm_s
        self._reasons: set[str] = set()
        self._began_at = 0.0
        self._failed_at = 0.0

    @property
    def goes_on(self) -> bool:
        """Whether there is an outage now."""
        return bool(self._reasons)

    def failed(self, what: str, reason: object, **fields: object) -> None:
        """Records a failure.

        Args:
            what: the text, to which the reason is added.
            reason: why it failed.
            fields: further fields of the record.
        """
        self._failed_at = time.monotonic()
        if not self.goes_on:
            self._began_at = self._failed_at
        text = str(reason)
        is_new = text not in self._reasons and len(self._reasons) < _REASONS_MAX_COUNT
        if is_new:
            self._reasons.add(text)
        level = self._level if is_new else logging.DEBUG
        extra = {"action": self._action, "state": "failing", "reason": text, **fields}
        self._logger.log(level, "%s: %s", what, text, extra=extra)

    def ended(self, what: str, **fields: object) -> None:
        """Records a success, which ends the outage if there is one.

        Args:
            what: the text, to which the outage's duration is added.
            fields: further fields of the record.
        """
        now = time.monotonic()
        if not self.goes_on or now - self._failed_at < self._calm_s:
            return
        self._reasons.clear()
        after_s = round(now - self._began_at, 1)
        extra = {"action": self._action, "state": "working", "after_s": after_s, **fields}
        self._logger.info("%s after %.1f s", what, after_s, extra=extra)
