"""What is logged of something that fails again and again: that it begins to fail, and that it works again."""

from __future__ import annotations

import logging
import time
from typing import Final

# A reason that was not told yet is news, but not without end: some have a number in them that differs each time.
_REASONS_MAX_COUNT: Final = 3


class Outage:
    """Logs the failures of one thing by their first and their end. Belongs to one thread.

    The first failure of a row is told at `level`, and so are a few others whose reason was not told in it yet; the rest
    at debug. The end is told at info, with how long it took. Records have the fields `state` (`failing` or `working`)
    and `reason`, and at the end `after_s`.

    Args:
        logger: of the module that sees it.
        action: of all its records.
        level: of failures that are told.
        calm_s: how long ago the last failure is at least when something that goes well ends the row: where failures and
            successes come mixed, each would else be told.
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
        """Whether a row has begun and not ended."""
        return bool(self._reasons)

    def failed(self, what: str, reason: object, **fields: object) -> None:
        """Notes a failure.

        Args:
            what: the text, to which the reason is added.
            reason: why.
            fields: further fields of the record.
        """
        self._failed_at = time.monotonic()
        if not self.goes_on:
            self._began_at = self._failed_at
        text = str(reason)
        is_news = text not in self._reasons and len(self._reasons) < _REASONS_MAX_COUNT
        if is_news:
            self._reasons.add(text)
        self._logger.log(
            self._level if is_news else logging.DEBUG,
            "%s: %s",
            what,
            text,
            extra={"action": self._action, "state": "failing", "reason": text, **fields},
        )

    def ended(self, what: str, **fields: object) -> None:
        """Notes that it works: ends the row, if there is one.

        Args:
            what: the text, to which the time since the first failure is added.
            fields: further fields of the record.
        """
        now = time.monotonic()
        if not self.goes_on or now - self._failed_at < self._calm_s:
            return
        self._reasons.clear()
        after_s = round(now - self._began_at, 1)
        self._logger.info(
            "%s after %.1f s",
            what,
            after_s,
            extra={"action": self._action, "state": "working", "after_s": after_s, **fields},
        )
