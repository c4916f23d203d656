"""A warning that a stranger can cause as often as they like, and that is logged seldom."""

from __future__ import annotations

import logging
import time
from typing import Final

_INTERVAL_S: Final = 60.0


class RareWarning:
    """Logs a text once a minute at most, with how often there was cause for it. Belongs to one thread."""

    def __init__(self, logger: logging.Logger, text: str, *, action: str) -> None:
        self._logger = logger
        self._text = text
        self._action = action
        self._count = 0
        self._silent_until = 0.0

    def warn(self) -> None:
        """Counts a cause, and logs where the last time is long enough ago."""
        self._count += 1
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _INTERVAL_S
            fields = {"count": self._count}
            self._logger.warning("%s (%d so far)", self._text, self._count, extra={"action": self._action, **fields})
